"""Models: backbone, decoder and heads wired together."""
