"""The HTTP server of `--mode=serve`: a run or an exported file behind it, and one page."""
