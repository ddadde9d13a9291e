"""Robots: from motion latents and proprioception to actions (ZipMo, section on robot control)."""
