"""The generation engine against transformers: `python -m benchmarks.generator`, shown in docs/performance.md."""
