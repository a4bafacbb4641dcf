"""The catalogue of libraries: what its entries say, how names match, and what a project adds."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import get_args

import pytest

from neural_coder import api, config, repo, survey
from neural_coder.analysis import Project, analyze, analyze_script, catalogue, catalogue_data
from neural_coder.errors import UserError
from neural_coder.filejobs import Options
from neural_coder.records import Analysis

SCRIPT = """\
import torch
from acme import zoo
from acme.train import Loop

model = zoo.build_resnet("tiny")
model.eval()
with torch.no_grad():
    first = model(torch.ones(1, 3))
    second = model.score(torch.ones(1, 3))
Loop(model).start()
"""
TABLE = """\
[[tool.neural_coder.catalogue.entries]]
names = "acme.zoo.build_*"
gives = "module"
layers = "Conv2d Linear"
runs = "score"

[[tool.neural_coder.catalogue.entries]]
names = ["acme.train.Loop"]
gives = "trainer"
fits = ["start"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(TABLE)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def sites(facts: Analysis) -> dict[str, list[int]]:
    return {
        "models": [model.line for model in facts.models],
        "inference": [call.line for call in facts.inference],
        "training": [call.line for call in facts.training],
    }


# --- what comes with the package --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        ("torchvision.models.resnet50", "module"),
        ("torchvision.models.?", "module"),
        ("torchvision.models.detection.fasterrcnn_resnet50_fpn", "module"),
        ("torchvision.models.ResNet50_Weights", "nothing"),
        ("torchvision.models.ResNet50_Weights.DEFAULT.transforms", "nothing"),
        ("torchvision.models.get_model", "module"),
        ("torchvision.models.get_model_weights", "nothing"),
        ("timm.create_model", "module"),
        ("timm.list_models", None),
        ("transformers.AutoModel.from_pretrained", "module"),
        ("transformers.AutoModel", None),
        ("transformers.AutoModel.register", None),
        ("transformers.BertModel", "module"),
        ("transformers.models.bert.modeling_bert.BertModel.from_pretrained", "module"),
        ("transformers.BertForMaskedLM.from_pretrained", "module"),
        ("transformers.TFBertModel.from_pretrained", "nothing"),
        ("transformers.AutoTokenizer.from_pretrained", "nothing"),
        ("transformers.DataCollatorForLanguageModeling", "nothing"),
        ("transformers.get_linear_schedule_with_warmup", "scheduler"),
        ("transformers.pipeline", "pipeline"),
        ("diffusers.StableDiffusionPipeline.from_pretrained", "pipeline"),
        ("diffusers.DDPMScheduler.from_config", "nothing"),
        ("diffusers.training_utils.EMAModel", "nothing"),
        ("torch.optim.adamw.AdamW", "optimizer"),
        ("torch.optim.?", "optimizer"),
        ("torch.optim.lr_scheduler.StepLR", "scheduler"),
        ("torch.nn.DataParallel", "same"),
        ("torch.nn.Linear", "layer"),
        ("torch.nn.functional.linear", None),
        ("torchaudio.pipelines.HUBERT_BASE.get_model", "module"),
        ("torchaudio.pipelines.HUBERT_BASE", None),
        ("whisper.load_model", "module"),
        ("faster_whisper.WhisperModel", None),
        ("vllm.LLM", None),
        ("keras.Model", None),
    ],
)
def test_names_of_libraries_are_known(name: str, gives: str | None) -> None:
    entry = catalogue.builtin().call(name)
    assert (entry.gives if entry else None) == gives


def test_aliases_apply_to_everything_below_them() -> None:
    known = catalogue.builtin()
    assert known.canonical("lightning.pytorch.Trainer") == "pytorch_lightning.Trainer"
    assert known.canonical("torch.nn.modules.linear.Linear") == "torch.nn.Linear"
    assert known.canonical("lightning.pytorches.Trainer") == "lightning.pytorches.Trainer"


@pytest.mark.parametrize(
    ("name", "is_base"),
    [
        ("torch.nn.Module", True),
        ("torch.nn.parallel.DistributedDataParallel", True),
        ("pytorch_lightning.LightningModule", True),
        ("lightning.LightningModule", True),
        ("transformers.PreTrainedModel", True),
        ("torchvision.ops.FeaturePyramidNetwork", True),
        ("torchvision.models.resnet18", False),
        ("transformers.Trainer", False),
        ("torch.utils.data.Dataset", False),
        ("django.db.models.Model", False),
        ("keras.Model", False),
    ],
)
def test_bases_that_make_classes_modules_are_known(name: str, is_base: bool) -> None:
    assert catalogue.builtin().is_module_base(name) is is_base


@pytest.mark.parametrize(
    ("name", "is_loss"),
    [
        ("criterion", True),
        ("crit", True),
        ("lossD", True),
        ("self.loss_fn", True),
        ("critic", False),
        ("glossy", False),
    ],
)
def test_names_of_losses_are_known(name: str, is_loss: bool) -> None:
    assert catalogue.builtin().names_loss(name) is is_loss


def test_hooks_of_trainers_are_steps() -> None:
    known = catalogue.builtin()
    assert known.is_step_method("validation_step")
    assert known.is_step_method("on_train_epoch_end")
    assert not known.is_step_method("forward")


def test_functions_that_compute_losses_are_known() -> None:
    known = catalogue.builtin()
    assert known.computes_loss("mse_loss")
    assert not known.computes_loss("softmax")


def test_every_name_of_the_builtin_catalogue_is_reached_by_itself() -> None:
    """No entry is hidden as a whole by one that stands before it."""
    known = catalogue.builtin()
    contents = catalogue.read_builtin()
    for entry in contents.entries:
        samples = [name.text.replace("**.", "").replace("**", "A").replace("*", "A") for name in entry.names]
        samples = [sample.replace("[A-Z]", "A").replace("[A-Z?]", "A") for sample in samples]
        assert any(known.entry(sample) is entry for sample in samples), samples


# --- what a project adds ----------------------------------------------------------------------------------------------


def test_entries_of_a_project_tell_about_libraries_that_nobody_knows(folder: Path) -> None:
    facts = analyze(folder / "script.py", Project.find(folder / "script.py"))
    assert sites(facts) == {"models": [5], "inference": [8, 9], "training": [10]}
    assert facts.models[0].layers == {"Conv2d", "Linear"}
    assert facts.models[0].trained


def test_a_project_without_entries_sees_no_more_than_before(folder: Path) -> None:
    (folder / "pyproject.toml").unlink()
    facts = analyze(folder / "script.py", Project(folder))
    assert sites(facts)["training"] == []
    assert [call.line for call in facts.inference] == [8]


def test_entries_are_found_from_a_folder_below(folder: Path) -> None:
    below = folder / "tools"
    below.mkdir()
    (below / "requirements.txt").touch()
    (below / "script.py").write_text(SCRIPT)
    assert sites(analyze(below / "script.py", Project.find(below / "script.py")))["training"] == [10]


def test_a_package_of_the_projects_entries_counts_as_building_on_pytorch(folder: Path) -> None:
    (folder / "other.py").write_text("import acme.zoo\n\nnet = acme.zoo.build_net()\nnet(1)\n")
    facts = analyze(folder / "other.py", Project.find(folder))
    assert sites(facts) == {"models": [3], "inference": [4], "training": []}


def test_entries_of_a_project_go_before_the_builtin_ones(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.neural_coder.catalogue.entries]]\nnames = "timm.create_model"\ngives = "nothing"\n'
    )
    (tmp_path / "script.py").write_text("import timm\n\nmodel = timm.create_model('a')\nmodel(1)\n")
    assert sites(analyze(tmp_path / "script.py", Project(tmp_path)))["models"] == []


def test_an_entry_may_tell_about_a_function_of_the_project_itself(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.neural_coder.catalogue.entries]]\nnames = "shop.registry.make"\ngives = "module"\n'
    )
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "registry.py").write_text("import os\n\ndef make(name):\n    return TABLE[os.environ[name]]()\n")
    script = tmp_path / "script.py"
    script.write_text("import torch\nfrom shop.registry import make\n\nthing = make('a')\nthing(torch.ones(1))\n")
    assert sites(analyze(script, Project.find(script))) == {"models": [4], "inference": [5], "training": []}


def test_packages_that_a_project_calls_foreign_have_no_modules(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom acme_forms import Form\n\nclass Page(Form):\n    def forward(self, x):\n        pass\n\n"
        "page = Page()\npage(torch.ones(1))\n"
    )
    assert sites(analyze(script, Project(tmp_path)))["models"] == [8]
    (tmp_path / "pyproject.toml").write_text('[tool.neural_coder.catalogue]\nforeign = "acme_forms"\n')
    assert sites(analyze(script, Project(tmp_path)))["models"] == []


def test_every_command_uses_the_entries_of_the_project(folder: Path) -> None:
    script = folder / "script.py"
    options = Options(jobs=1, cached=False)
    (outcome,) = survey.survey([script], options).files
    assert outcome.analysis is not None
    assert [model.line for model in outcome.analysis.models] == [5]
    assert b"inference_mode" in repo.patch_paths([script], ["inference_mode"], options).diff
    assert "inference_mode" in api.enable(script, "inference_mode", run=False).diff
    assert analyze_script(script, Project.find(script))[0].models  # what `optimize` begins with


def test_the_settings_accept_the_table(folder: Path) -> None:
    assert config.load(folder).path == folder / "pyproject.toml"


def test_files_that_are_no_toml_and_not_about_us_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = {{ cookiecutter.name }}\n")
    assert Project(tmp_path).catalogue is catalogue.builtin()


def test_equal_tables_share_one_catalogue_and_others_differ(folder: Path) -> None:
    first = Project(folder).catalogue
    assert Project(folder).catalogue is first
    assert first.digest != catalogue.builtin().digest
    (folder / "pyproject.toml").write_text(TABLE.replace("score", "rate"))
    assert Project(folder).catalogue.digest != first.digest


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[tool.neural_coder.catalogue]\nentrys = []\n", "has no key 'entrys'; did you mean 'entries'?"),
        ("[tool.neural_coder.catalogue]\nforeign = 3\n", "foreign: 3 is not a list of texts"),
        ("[tool.neural_coder.catalogue]\npackages = ['a-b']\n", 'packages: "a-b" is not a name as Python writes it'),
        (
            "[tool.neural_coder.catalogue.entries]\ngives = 'module'\n",
            r"entries: .* is not a list of tables; write \[\[",
        ),
        ("[[tool.neural_coder.catalogue.entries]]\ngives = 'module'\n", r"entries\[1\] needs 'names'"),
        ("[[tool.neural_coder.catalogue.entries]]\nnames = 'a.b'\n", r"entries\[1\] needs 'gives'"),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = 'a.b'\ngives = 'modul'\n",
            r"entries\[1\].gives: \"modul\" is not known; did you mean 'module'\?",
        ),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = 'a.b'\ngives = 7\n",
            r"entries\[1\].gives: 7 is not one of module, pipeline",
        ),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = '*.build'\ngives = 'module'\n",
            r"entries\[1\].names: \"\*.build\" is not a dotted name that begins with a package",
        ),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = ''\ngives = 'module'\n",
            r"entries\[1\].names: \"\" is not a list with at least one name",
        ),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = 'a.b'\ngives = 'module'\ncalled = 'no'\n",
            r"entries\[1\].called: \"no\" is not true or false",
        ),
        (
            "[[tool.neural_coder.catalogue.entries]]\nnames = 'a.b'\ngives = 'module'\nitems = 'other'\n",
            r"entries\[1\].items: \"other\" is not a list of \"model\"",
        ),
        (
            "[tool.neural_coder.catalogue.spelling]\nloss_classes = '(Loss'\n",
            r"spelling.loss_classes: \"\(Loss\" is not a regular expression",
        ),
        ("[tool.neural_coder.catalogue.methods]\nruns = 'a'\n", "has no key 'runs'; did you mean 'run'?"),
        ("[tool.neural_coder.catalogue.aliases]\na = 'b c'\n", 'aliases.a: "b c" is not a dotted name'),
        ("[tool.neural_coder]\ncatalogue = 3\n", r"must be a table: \[tool.neural_coder.catalogue\]"),
    ],
)
def test_a_wrong_entry_is_named_in_one_sentence(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(table)
    with pytest.raises(UserError, match=message.replace("?", r"\?").replace(r"\\?", r"\?")) as caught:
        _ = Project(tmp_path).catalogue
    assert str(caught.value).startswith(f"{tmp_path / 'pyproject.toml'}: ")
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith("?.")


def test_the_page_on_the_format_names_every_key() -> None:
    """docs/catalogue.md and the reader cannot drift apart."""
    page = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text()
    source = ast.parse(Path(catalogue.__file__).with_name("catalogue_data.py").read_text())
    fields = {
        item.target.id
        for node in source.body
        if isinstance(node, ast.ClassDef) and node.name == "Entry"
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assert {name for name in fields if f"| `{name}` |" not in page} == set()
    assert {word for word in get_args(catalogue_data.Gives) if f"`{word}`" not in page} == set()
    top = {key for key in catalogue_data._KEYS if f"| `{key}` |" not in page and f"| `{key}." not in page}
    assert top == {"entries"}
    example = textwrap.dedent(page.split("```toml\n")[1].split("```")[0])
    assert "acme.zoo.build_*" in example


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import clip\n", True),
        ("from clip import load\n", True),
        ("import os, clip as c\n", True),
        ("model = clip.load(name)\n", True),
        ("zoo = importlib.import_module('timm')\n", True),
        ("x = self.torch_net(x)  # with torch\n", True),
        ("x = K.clip(x, 0, 1)\n", False),
        ("def f(clip=None):\n    return clip\n", False),
        ("# clip higher values\n", False),
    ],
)
def test_a_word_is_a_library_only_where_it_stands_for_one(text: str, expected: bool) -> None:
    assert catalogue.builtin().mentions_library(text) is expected
