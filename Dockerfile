# docker build -t lungdet .                                   for CPUs
# docker build -t lungdet --build-arg TORCH=cu128 .           for NVIDIA GPUs (torch's index names)
# docker run --rm -v $PWD:/data lungdet infer /data/scan.nii.gz --out /data/results
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG TORCH=cpu
# What OpenCV links to; make for `docker run --entrypoint make lungdet test`.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/lungdet
COPY . .
# On a GPU torch is what its index has; the tested versions are those of everything else.
RUN if [ "$TORCH" = cpu ]; then tested=constraints.txt; else tested=constraints-gpu.txt; fi \
    && pip install --no-cache-dir -c $tested torch \
        --extra-index-url "https://download.pytorch.org/whl/$TORCH" \
    && pip install --no-cache-dir -c $tested ".[mm,dicom,download,cluster]"
WORKDIR /data
ENTRYPOINT ["lungdet"]
CMD ["--help"]
