"""Hugging Face models behind aiaas-sdk: `hf:PATH` runs a local folder or GGUF file with the transformers library."""
