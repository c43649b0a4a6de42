"""Control groups of sandboxes, on a tree of files that stands for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rewards.sandbox import groups
from rewards.sandbox.groups import Group, Place, make_group


def on_tree(monkeypatch: pytest.MonkeyPatch, *places: Place) -> None:
    monkeypatch.setattr(groups, "places", lambda: places)


def test_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, int] = {}
    monkeypatch.setattr(groups, "_write", lambda file, value: written.update({file.name: value}))
    on_tree(monkeypatch, Place(folder=tmp_path, memory="memory.max", processes="pids.max"))
    group = make_group(1000, 5)
    assert group is not None
    [folder] = group.folders
    assert folder.is_dir() and f"-{os.getpid()}-" in folder.name
    assert group.joins == [str(folder / "cgroup.procs")]
    assert written["memory.max"] == 1000 and written["pids.max"] == 5
    assert written["memory.swap.max"] == 0
    group.remove()
    group.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_limit_that_cannot_be_set_makes_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_tree(monkeypatch, Place(folder=tmp_path, memory="memory.max", processes=None))
    assert make_group(1000, 5) is None  # its files are not there
    assert list(tmp_path.iterdir()) == []
    on_tree(monkeypatch)
    assert make_group(1000, 5) is None


def test_a_group_in_use_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "REMOVE_SECONDS", 0.05)
    (tmp_path / "group" / "inside").mkdir(parents=True)
    Group(folders=(tmp_path / "group",)).remove()
    assert (tmp_path / "group").is_dir()


def test_groups_of_processes_that_ended_are_removed(tmp_path: Path) -> None:
    dead, ours = (tmp_path / f"{groups.PREFIX}-{pid}-0" for pid in (2**22 + 1, os.getpid()))
    for folder in (dead, ours):
        folder.mkdir()
    groups._remove_those_of_the_dead(tmp_path)
    assert list(tmp_path.iterdir()) == [ours]


def test_a_folder_where_no_process_can_be_put_is_not_used(tmp_path: Path) -> None:
    assert not groups._usable(tmp_path)  # it has no cgroup.procs
    (tmp_path / "cgroup.procs").touch()
    assert not groups._usable(tmp_path)  # and the group made in it has none either
    assert [file.name for file in tmp_path.iterdir()] == ["cgroup.procs"]
