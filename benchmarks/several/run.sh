#!/usr/bin/env bash
# Every library and variant, with one and with two processes; needs an environment with all four installed:
#   pip install torch==2.13.0 accelerate==1.15.0 lightning-fabric==2.6.6 mmengine==0.10.7 optimscheduler
set -uo pipefail
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 TORCH_CPP_LOG_LEVEL=ERROR
for ranks in 1 2; do
  for what in optimscheduler "accelerate plain" "accelerate own" "accelerate counted" "accelerate wrapper" \
    "fabric plain" "fabric own" "fabric wrapper" "mmengine plain" "mmengine parts" "mmengine own"; do
    # shellcheck disable=SC2086
    python -m torch.distributed.run --nproc-per-node "$ranks" --master-port $((20000 + RANDOM % 20000)) \
      "with_${what%% *}.py" ${what#* } 2>/dev/null | grep '^{' || echo "{\"what\": \"$what\", \"ranks\": $ranks, \"error\": \"no answer\"}"
  done
done
