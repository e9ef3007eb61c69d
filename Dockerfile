# Any image with Python 3.11 or newer that can create virtual environments. The default is an official
# slim image, pinned by digest because a tag can move. CI imports a Debian image made by debootstrap.
ARG BASE_IMAGE=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${BASE_IMAGE} AS base

FROM base AS builder
# pip prefers wheels in deploy/wheelhouse to an index. With PIP_NO_INDEX=1 it uses only these wheels, and
# the build needs no network. pip checks the hashes in both cases.
ARG PIP_NO_INDEX
ENV PIP_FIND_LINKS=/src/wheelhouse PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY deploy/wheelhouse/ wheelhouse/
COPY requirements/ requirements/
# pip is only in the environment of the builder, not in the image.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement requirements/build.txt
RUN python3 -m venv --without-pip /opt/equabot \
    && /opt/build/bin/pip --python /opt/equabot/bin/python install --require-hashes --requirement requirements/runtime.txt
# 123 of the 126 MB of the Kubernetes client are generated code that the broker never imports.
COPY deploy/release/prune_kubernetes.sh deploy/release/
RUN deploy/release/prune_kubernetes.sh /opt/equabot/lib/python3*/site-packages
COPY LICENSE README.md pyproject.toml ./
COPY clients/python/ clients/python/
COPY broker/ broker/
COPY deploy/release/client_dependency.py deploy/release/
RUN EQUABOT_RELEASE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . clients/python \
    && /opt/build/bin/pip --python /opt/equabot/bin/python install --no-deps dist/*.whl

FROM base
LABEL org.opencontainers.image.title="equabot-broker" \
    org.opencontainers.image.description="A credential broker for AI agents in containers" \
    org.opencontainers.image.licenses="Apache-2.0"
# The kubelet and Prometheus connect from outside the container. The agents' API stays on Unix sockets.
ENV PATH=/opt/equabot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EQUABOT_HOME=/var/lib/equabot \
    EQUABOT_RUN_DIR=/run/equabot \
    EQUABOT_LISTEN_HEALTH=0.0.0.0:8686 \
    EQUABOT_LISTEN_METRICS=0.0.0.0:9464
RUN install --directory --owner=65532 --group=65532 --mode=0755 /var/lib/equabot /run/equabot
COPY --from=builder /opt/equabot /opt/equabot
# Slim images have no bytecode for the standard library, and a read-only root file system cannot store it.
# This compiles once what a start imports. It also fails the build if the Kubernetes client lacks a module.
RUN ["/opt/equabot/bin/python", "-c", "import equabot_broker.bootstrap, equabot_broker.cli.main, equabot_cli.main, equabot_broker.kube.api as kube; kube.import_client()"]
USER 65532:65532
WORKDIR /var/lib/equabot
EXPOSE 8686 9464
ENTRYPOINT ["equabot"]
CMD ["serve"]
