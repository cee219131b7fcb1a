# The sampler, for GPUs, or for CPUs with VARIANT=cpu. From the root of the repository:
#   docker build -f docker/sampler.Dockerfile -t empg/sampler:0.1.0 .
#   docker build -f docker/sampler.Dockerfile --build-arg VARIANT=cpu -t empg/sampler:0.1.0-cpu .
# BASE is a Debian or Ubuntu image with python3 >= 3.11 and venv; give a digest to pin it for good.
ARG BASE=python:3.11.13-slim-bookworm
ARG UV_VERSION=0.13.9

FROM ${BASE} AS uv
ARG UV_VERSION
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" && python3 -m venv --without-pip /opt/empg/venv

FROM uv AS code
COPY pyproject.toml README.md /src/
COPY core /src/core
COPY operator /src/operator
COPY sampler /src/sampler
COPY trainer /src/trainer
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/empg/venv/bin/python --no-deps --target /opt/empg/code /src && rm -f /opt/empg/code/.lock

FROM ${BASE}
# Triton compiles its launchers with gcc when a GPU is used first.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 && rm -rf /var/lib/apt/lists/*
# Programs ask for the name of their user; an empty name breaks some. Ubuntu has a user 1000 of its own.
RUN (getent group 1000 >/dev/null || groupadd --gid 1000 empg) && \
    (getent passwd 1000 >/dev/null || useradd --uid 1000 --gid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin empg)
# Up to PyTorch, learner and sampler have the same layers, which a node stores once.
COPY docker/requirements/torch.txt /opt/empg/requirements/
ARG UV_VERSION
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" && python3 -m venv --without-pip /opt/empg/venv && \
    /opt/uv/bin/uv pip install --no-cache --python /opt/empg/venv/bin/python --no-deps -r /opt/empg/requirements/torch.txt && rm -rf /opt/uv
# vLLM on CPU wants the NUMA library.
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
ARG VARIANT=cuda
COPY docker/requirements/sampler-${VARIANT}.txt /opt/empg/requirements/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}" && \
    /opt/uv/bin/uv pip install --no-cache --python /opt/empg/venv/bin/python --no-deps -r /opt/empg/requirements/sampler-${VARIANT}.txt && rm -rf /opt/uv
COPY --from=code /opt/empg/code /opt/empg/code
# Where GKE mounts the driver's libraries; NVIDIA's container toolkit needs no such path.
# Nothing is written but to /tmp and the mounted volumes, so that the root file system can be read-only.
ENV PATH=/opt/empg/code/bin:/opt/empg/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/empg/code PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp USER=empg \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64
USER 1000:1000
ENTRYPOINT ["empg-sampler"]
