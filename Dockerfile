# cnn-search for a CPU (target `cpu`, the default) or for NVIDIA GPUs (target `gpu`).
#
#   docker build --target gpu --tag cnn-search:gpu .
#
# Builds with BuildKit and with the classic builder. What changes rarely comes first: both images share the layer of
# packages, TensorFlow is one of its own, and a change of the source moves half a megabyte.

FROM python:3.12-slim-bookworm AS build
# For those behind a mirror: docker build --build-arg PIP_INDEX_URL=...; it stays out of the final images.
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Everything but TensorFlow. libclang is 62 MB that TensorFlow asks for and never loads.
FROM build AS packages
RUN python -m venv --without-pip /opt/venv
COPY requirements.lock ./
RUN awk '/^[^ #]/ { left_out = /^(tensorflow|libclang)==/ } !left_out' requirements.lock >packages.lock \
 && pip --python /opt/venv/bin/python install --no-deps --require-hashes -r packages.lock

# The same version without its code for GPUs, which on ARM `tensorflow` itself is. Headers are for building operations.
FROM build AS tensorflow-cpu
COPY requirements.lock requirements-cpu.lock ./
RUN awk '/^[^ #]/ { taken = /^tensorflow==/ } taken' requirements.lock >tensorflow.lock \
 && if [ "$(uname -m)" = x86_64 ]; then mv requirements-cpu.lock tensorflow.lock; fi \
 && pip install --no-deps --require-hashes --target /opt/tensorflow -r tensorflow.lock \
 && rm -r /opt/tensorflow/bin /opt/tensorflow/tensorflow/include

FROM build AS program
COPY --from=packages /opt/venv /opt/venv
COPY pyproject.toml README.md ./
COPY search search
COPY trainer trainer
COPY storage storage
COPY deploy/health.py /opt/cnn-search/
RUN pip --python /opt/venv/bin/python install --no-deps --no-build-isolation --target /opt/cnn-search .

FROM python:3.12-slim-bookworm AS runtime
# Known to volumes and to Kubernetes by its number.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /cache --shell /usr/sbin/nologin cnn \
 && mkdir /data /cache /locks /work \
 && chown cnn:cnn /data /cache /locks /work
ENV PATH=/opt/cnn-search/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/cnn-search:/opt/tensorflow \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    MPLCONFIGDIR=/cache/matplotlib \
    CUDA_CACHE_PATH=/cache/cuda \
    CNN_SEARCH_DATA=/data \
    CNN_SEARCH_LOCKS=/locks
COPY --from=packages /opt/venv /opt/venv
WORKDIR /work
ENTRYPOINT ["cnn-search"]
CMD ["--help"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m --retries=3 CMD ["python", "/opt/cnn-search/health.py"]

FROM runtime AS cpu
COPY --from=tensorflow-cpu /opt/tensorflow /opt/tensorflow
COPY --from=program /opt/cnn-search /opt/cnn-search
USER 10001:10001
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cnn-search, for the CPU" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# The classic builder makes every stage above its target: those for GPUs come last.
FROM build AS tensorflow-gpu
COPY requirements.lock requirements-gpu.lock ./
RUN awk '/^[^ #]/ { taken = /^tensorflow==/ } taken' requirements.lock >tensorflow.lock \
 && pip install --no-deps --require-hashes --target /opt/tensorflow -r tensorflow.lock -r requirements-gpu.lock \
 && rm -r /opt/tensorflow/bin /opt/tensorflow/tensorflow/include

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TF_FORCE_GPU_ALLOW_GROWTH=true
COPY --from=tensorflow-gpu /opt/tensorflow /opt/tensorflow
COPY --from=program /opt/cnn-search /opt/cnn-search
USER 10001:10001
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cnn-search, for NVIDIA GPUs" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM cpu
