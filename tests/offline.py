# SPDX-License-Identifier: Apache-2.0
"""The environment of every Python process that the tests start. Import it before anything else.

The libraries phone home or probe the network by default. No test may need it, so it is switched off
here, in one place; child processes inherit the setting.
"""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="disabled",
    AXOLOTL_DO_NOT_TRACK="1",
    DS_ACCELERATOR="cpu",  # DeepSpeed would probe for accelerators
    OMP_NUM_THREADS="1",  # the ranks of a case are processes, and they share few cores
    GLOO_SOCKET_IFNAME="lo",
)
