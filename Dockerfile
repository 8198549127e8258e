# syntax=docker/dockerfile:1
# A node of Atmosphere, with the small models that come along: docker build -t atmosphere .
#
#   --build-arg LLAMA_CPP_PYTHON=1       compile llama-cpp-python for the machine that builds, some minutes
#   --build-arg CMAKE_ARGS=-DGGML_BLAS=ON   how, as llama.cpp has it
#
# What a container may be told stands in docs/configuration.md, and how to run one in docs/how-to/containers.md.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG LLAMA_CPP_PYTHON=0
ARG CMAKE_ARGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The compiler stays in this stage, and comes only when there is something to compile.
# hadolint ignore=DL3008
RUN if [ "$LLAMA_CPP_PYTHON" = 1 ]; then \
      apt-get update && \
      apt-get install -y --no-install-recommends build-essential cmake && \
      rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY atmo atmo
RUN pip wheel --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/atmo && \
    wheel="$(echo /wheels/*.whl)" && \
    if [ "$LLAMA_CPP_PYTHON" = 1 ]; then wheel="${wheel}[llama-cpp-python]"; fi && \
    /opt/atmo/bin/pip install "$wheel"

FROM python:${PYTHON}-slim
# OpenMP, which llama-cpp-python was linked with.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends libgomp1 && \
    rm -rf /var/lib/apt/lists/* && \
    groupadd --gid 10001 atmo && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/atmo --shell /usr/sbin/nologin atmo && \
    install -d -o atmo -g atmo -m 700 /var/lib/atmo /invite
COPY --from=build /opt/atmo /opt/atmo
# The API is open to other machines here, so it asks for a key: docker exec NAME atmo keys create. Nothing is searched by
# multicast, which does not leave a container's network: name ATMO_BOOTSTRAP_NODES.
ENV PATH=/opt/atmo/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    ATMO_HOME=/var/lib/atmo \
    ATMO_RUNTIME=/tmp/atmo \
    ATMO_HOST=0.0.0.0 \
    ATMO_PORT=4600 \
    ATMO_TRANSPORT_LANE_PORT=4601 \
    ATMO_DISCOVERY_LAN=false \
    ATMO_GATEWAY_HOST=0.0.0.0 \
    ATMO_GATEWAY_PORT=4680 \
    ATMO_GATEWAY_AUTH=true
USER 10001:10001
WORKDIR /var/lib/atmo
VOLUME ["/var/lib/atmo"]
EXPOSE 4600-4603 4680
# Whether a model is loaded yet is another question: GET /ready.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["atmo", "node", "status"]
ENTRYPOINT ["atmo"]
CMD ["node", "start", "--foreground"]
