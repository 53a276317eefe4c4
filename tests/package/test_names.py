"""The code keeps to one term per concept: no name for two things, no retired identifier, no file that is too long."""

from __future__ import annotations

import names
import pytest


@pytest.fixture(scope="module")
def files() -> list:
    return names.source_files()


def test_no_public_class_or_module_has_the_name_of_another(files: list) -> None:
    assert names.named_twice(files) == {}


def test_no_retired_identifier_is_left(files: list) -> None:
    assert names.retired_left(files) == []


def test_no_retired_command_or_key_is_left_in_documents() -> None:
    assert names.retired_in_text() == []


def test_only_files_with_a_reason_are_long(files: list) -> None:
    assert {name for name, _ in names.long_files(files)} <= set(names.LONG_FILES)


def test_files_that_documents_name_exist() -> None:
    assert names.missing_paths() == []
