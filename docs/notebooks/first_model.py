# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From a CSV file to a model that answers
#
# Open this file as a notebook with jupytext, or run it as a script. It trains the smallest embedded base for a few
# steps on a CPU, so the answers are not right yet; more steps, or another base, change two lines.

# %%
import csv
import io

import lightning as L
import torch

from nrt_lightning import (
    NRTModule,
    PlainTemplate,
    Policy,
    QADataModule,
    RegisterPrograms,
    Sampling,
    export_policy,
)
from nrt_lightning.cli.main import run
from nrt_lightning.export import RunRecord
from nrt_lightning.tools.chat import Answerer, ChatSettings, Display, read_speaker

STEPS = 4

# %% [markdown]
# ## 1. Rows
#
# One column for the question, one for the answer. Any file of yours will do.

# %%
with open("rows.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["question", "answer"])
    rows.writerows([row.question, row.answer] for row in RegisterPrograms("train", 200).rows())

# %% [markdown]
# ## 2. Training

# %%
L.seed_everything(0)
data = QADataModule(train="rows.csv", val_rows=8, test_rows=8, batch_size=4, template=PlainTemplate("{question}"))
module = NRTModule(
    Policy("embedded:registers-base"),
    sampling=Sampling(group_size=4, max_trace_tokens=24, max_answer_tokens=12),
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
)
trainer = L.Trainer(
    max_steps=STEPS,
    accelerator="cpu",
    logger=False,
    default_root_dir="run",
    gradient_clip_val=1.0,
    val_check_interval=2,
)
trainer.fit(module, data)

# %% [markdown]
# ## 3. Figures on rows that it has not seen

# %%
[figures] = trainer.test(module, data, verbose=False)
print({name: round(value, 3) for name, value in figures.items()})

# %% [markdown]
# ## 4. Export
#
# The record keeps prompts and limits, so that other programs ask as training did.

# %%
directory = export_policy(module.policy, "trained", record=RunRecord.of(trainer, module), overwrite=True)
print(sorted(path.name for path in directory.iterdir()))

# %% [markdown]
# ## 5. A question, and its answer
#
# In a shell: `nrt-lightning chat trained`.

# %%
shown = io.StringIO()
answerer = Answerer(read_speaker("trained"), ChatSettings(), Display(shown))
reply = answerer.ask("a4b*2c+2d+3?dc:")
print(shown.getvalue())

# %% [markdown]
# ## 6. Several answers to each question, and their majority

# %%
command = ["evaluate", "trained", "--questions=rows.csv", "--rows=4", "--samples=4", "--overwrite=true"]
run(command)

# %% [markdown]
# ## 7. Serving
#
# vLLM reads the directory: `vllm serve trained --served-model-name mine`. Ask it with
# `skip_special_tokens: false`, and split the text at the marker.

# %%
marker = module.policy.markup.marker
print(f"trace {marker} answer")
