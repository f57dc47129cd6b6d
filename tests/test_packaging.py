import re

import lungdet_mmdet


def test_every_folder_with_modules_is_a_package(repository):
    folders = {path.parent for path in (repository / "lungdet_mmdet").rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_source_archive_holds_whatever_stands_beside_the_package(repository):
    manifest = (repository / "MANIFEST.in").read_text()
    grafted = set(re.findall(r"^graft (\S+)$", manifest, flags=re.MULTILINE))

    assert grafted == {"configs", "data_prep", "docs", "tests", "tools"}
    assert all((repository / folder).is_dir() for folder in grafted)


def test_version_is_the_same_everywhere(repository):
    citation = (repository / "CITATION.cff").read_text()
    changelog = (repository / "CHANGELOG.md").read_text()
    version = lungdet_mmdet.__version__

    assert f"\nversion: {version}\n" in citation
    assert re.search(r"^## \[([^]]+)\]", changelog, flags=re.MULTILINE)[1] == version
