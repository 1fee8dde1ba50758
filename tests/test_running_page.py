"""docs/running.md: its scripts and its YAML can be read, and name what there is."""

import re
import shlex
import subprocess

import pytest
import yaml

from tests.conftest import ROOT
from vggbn.commands.experiment import _parser

PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
BASH = [text for kind, text in BLOCKS if kind == "bash"]
YAML = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
SCRIPTS = [
    *BASH,
    *(document[key] for document in YAML for key in ("setup", "run") if key in document),
]


def commands() -> list[list[str]]:
    """Every command line of an experiment, from the experiment's name on."""
    found = [
        re.findall(r"-m (experiments\.[^'\n]*)", text.replace("\\\n", " ")) for text in SCRIPTS
    ]
    words = [shlex.split(line.partition(" || ")[0]) for lines in found for line in lines]
    (pod,) = [document for document in YAML if document.get("kind") == "JobSet"]
    job = pod["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    container = job["containers"][0]
    return [*words, [container["command"][-1], *container["args"]]]


def test_every_block_is_checked():
    assert {kind for kind, _ in BLOCKS} == {"bash", "yaml"}
    assert len(BASH) >= 7 and len(YAML) == 3


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_can_read_the_scripts(script):
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def test_the_commands_name_experiments_and_flags_that_exist():
    from experiments.vgg_depth import EXPERIMENT

    flags = {flag for action in _parser(EXPERIMENT)._actions for flag in action.option_strings}
    assert len(commands()) >= 9
    for name, *words in commands():
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file(), name
        assert {word for word in words if word.startswith("--")} <= flags, words


def test_the_pods_hold_the_whole_slice():
    """As many pods as hosts, each with its host's chips: 4 x 4 of them in all."""
    (jobset,) = [document for document in YAML if document.get("kind") == "JobSet"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    across, down = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert job["parallelism"] == job["completions"]
    assert job["parallelism"] * chips == int(across) * int(down)
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes
