"""Super-resolution of diffusion MRI to any voxel size, as a BIDS App."""

__version__ = "0.1.0"
