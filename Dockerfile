# docker build -t bids_sr .                              with PyTorch's CUDA build, for GPU and CPU
# docker build -t bids_sr:cpu --build-arg TORCH=cpu .    small, for CPU only

FROM python:3.11-slim-bookworm AS build
# The version of PyTorch stands in constraints.txt; this names its build: cuda for that of the package index, or the end
# of an address below download.pytorch.org/whl, such as cpu or cu126.
ARG TORCH=cuda
WORKDIR /src
COPY constraints.txt ./
# In a layer of its own, since it is most of the image and seldom changes.
RUN build="${TORCH#cuda}" \
    && sed -i "s/^torch==[0-9.]*/&${build:+"+${build}"}/" constraints.txt \
    && python -m venv /opt/bids_sr \
    && /opt/bids_sr/bin/pip install --no-cache-dir -c constraints.txt \
        ${build:+--extra-index-url "https://download.pytorch.org/whl/${build}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY bids_sr ./bids_sr
RUN /opt/bids_sr/bin/pip install --no-cache-dir -c constraints.txt .
# Loading a model compares its weights with the checksum in its card: an image with damaged weights is never finished.
# The folder is another one, so that what is loaded is what was installed.
WORKDIR /
RUN /opt/bids_sr/bin/python -c "import torch; from bids_sr.models.registry import list_models, load_model; \
    [load_model(name, torch.device('cpu')) for name in list_models()]"

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bids_sr" \
      org.opencontainers.image.description="BIDS App for super-resolution of diffusion MRI to any voxel size" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
COPY --from=build /opt/bids_sr /opt/bids_sr
# Nothing is written to the image at run time: any user id, a read-only root and a missing HOME are all fine.
# DIPY and pybids ask for a home as soon as they are imported, and fail where there is none.
ENV PATH=/opt/bids_sr/bin:$PATH \
    BIDS_SR_CONTAINER_TAG="bids_sr:${VERSION}" \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1
RUN install -d -m 0755 /data && install -d -m 1777 /out /scratch
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/opt/bids_sr/bin/bids_sr"]
CMD ["--help"]
