"""Aspects: JSON facts about any URN, kept for ever."""
