"""Kimodo: diffusion over motion features with a root stage and a body stage, steered by sentences and constraints."""
