"""Model runs on Provena: what is registered of an order or job, and thousands of runs from a file, each once."""
