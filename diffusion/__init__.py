"""Diffusion models as policies over the denoising decision process."""
