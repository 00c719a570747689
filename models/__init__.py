"""What stands behind `llm.py`: endpoints, answers, credentials, prices, storage."""
