"""What others rely on in a project: its licence, its metadata, and checks before a commit that are CI's."""

import configparser
import re

from launches import ROOT

import grokjax

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
AUTHORS = "The grokjax authors"


def test_licence_and_authors():
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert f"Copyright {AUTHORS}\n" in licence
    metadata = SETUP["metadata"]
    assert (metadata["license_expression"], metadata["license_files"]) == ("Apache-2.0", "LICENSE")
    assert metadata["author"] == AUTHORS
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"  - name: {AUTHORS}\n" in citation
    assert "license: Apache-2.0\n" in citation


def test_the_version_is_said_once():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {grokjax.__version__}\n" in citation
    releases = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[:2] == ["Unreleased", grokjax.__version__]


def test_classifiers_name_the_pythons_that_are_allowed():
    pythons = re.findall(r"Python :: 3\.(\d+)", SETUP["metadata"]["classifiers"])
    assert SETUP["options"]["python_requires"] == f">=3.{pythons[0]}"
    assert pythons == sorted(pythons, key=int)


def test_before_a_commit_the_checks_are_cis():
    """Those of CI that take seconds, by the same words; nothing is fetched for them."""
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    stage = ci[ci.index("checks() {") : ci.index("everything() {")]
    checks = re.findall(r"^    \.venv/bin/(.+)$", stage, re.MULTILINE)
    entries = re.findall(r"^        entry: (.+)$", config, re.MULTILINE)
    assert entries == [check for check in checks if "sphinx" not in check]
    assert re.findall(r"repo: (.+)", config) == ["local"]
    assert "rev:" not in config


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:grokjax|tests|experiments|benchmarks|docs|constraints)/[\w/]*\.?\w*)`", text)
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).exists(), name
