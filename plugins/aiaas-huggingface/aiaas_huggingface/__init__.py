"""Hosted Hugging Face endpoints behind aiaas-sdk: TGI, TEI, and pipelines that speak task JSON."""
