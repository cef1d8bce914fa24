"""What is known about diffusion MRI series: gradients, b0, brain mask, registration, tensor and its comparison."""
