"""Answers about a million photos: photos -> Parquet, by the handler's own reading and model code, over Ray Data."""
