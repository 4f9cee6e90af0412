"""Queues of JSON messages, first in, first out."""
