# docker build --tag nrt-lightning .                          for CPUs
# docker build --tag nrt-lightning --build-arg TORCH=cu128 .  for CUDA 12.8; run with --gpus all
# docker run --rm --volume "$PWD:/work" nrt-lightning fit --config run.yaml
#
# This file has not been tested.
FROM python:3.11-slim

# The build of torch: cpu, or cu126, cu128, ... as https://download.pytorch.org/whl lists them.
ARG TORCH=cpu
ARG EXTRAS=qlora,plot

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/nrt-lightning
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY nrt_lightning ./nrt_lightning
RUN python -m pip install --constraint constraints.txt \
        --index-url "https://download.pytorch.org/whl/${TORCH}" --extra-index-url https://pypi.org/simple torch \
    && python -m pip install --constraint constraints.txt ".[${EXTRAS}]"

RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["nrt-lightning"]
CMD ["--help"]
