"""Parts of models: attention, convolutions, quantizers, codebooks."""
