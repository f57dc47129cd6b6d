# docker build -t lungdet .                                   for CPUs
# docker build -t lungdet --build-arg TORCH=cu128 .           for NVIDIA GPUs (torch's index names)
# docker run --rm --user $(id -u):$(id -g) -v $PWD:/data lungdet infer /data/scan.nii.gz --out /data/results
# docker run --rm --entrypoint make lungdet -C /opt/lungdet test
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cpu
# What OpenCV links to, and make for the tests.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/lungdet
COPY . .
# On a GPU torch is what its index has; the tested versions are those of everything else.
RUN index="https://download.pytorch.org/whl/$TORCH" \
    && if [ "$TORCH" = cpu ]; then \
        tested=constraints.txt \
        && pip install --no-cache-dir -c $tested torch --extra-index-url "$index"; \
    else \
        tested=constraints-gpu.txt && pip install --no-cache-dir torch --index-url "$index"; \
    fi \
    && pip install --no-cache-dir -c $tested ".[mm,dicom,download,cluster]"
# A user of the machine outside has no home in here, but programs that want to keep something there.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["lungdet"]
CMD ["--help"]
