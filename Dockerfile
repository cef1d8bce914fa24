# docker build -t bids_sr .
# TORCH_SPEC is the requirement that chooses PyTorch. The build on the package index uses CUDA; for the small CPU image
# name a CPU build and, as PIP_EXTRA_INDEX_URL, the index that offers it.

FROM python:3.11-slim-bookworm AS build
ARG TORCH_SPEC=torch==2.13.0
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY constraints.txt ./
# The torch asked for replaces the pinned one; in a layer of its own, since it is most of the image and seldom changes.
RUN python -m venv /opt/bids_sr \
    && grep -v '^torch==' constraints.txt > others.txt \
    && /opt/bids_sr/bin/pip install --no-cache-dir -c others.txt "${TORCH_SPEC}"
COPY pyproject.toml README.md LICENSE ./
COPY bids_sr ./bids_sr
RUN /opt/bids_sr/bin/pip install --no-cache-dir -c others.txt . \
    && /opt/bids_sr/bin/bids_sr --version

FROM python:3.11-slim-bookworm
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="bids_sr" \
      org.opencontainers.image.description="BIDS App for super-resolution of diffusion MRI to any voxel size" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bids_sr /opt/bids_sr
# Nothing is written to the image at run time: any user id, a read-only root and a missing HOME are all fine.
ENV PATH=/opt/bids_sr/bin:$PATH \
    BIDS_SR_CONTAINER_TAG="bids_sr:${VERSION}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1
RUN install -d -m 0755 /data && install -d -m 1777 /out /scratch
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/opt/bids_sr/bin/bids_sr"]
CMD ["--help"]
