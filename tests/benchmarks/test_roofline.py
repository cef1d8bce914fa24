"""Bytes are counted once per operation, and the picture shows what was measured."""

import torch

from benchmarks import roofline


def test_an_operation_reads_its_arguments_and_writes_its_result():
    first, second = torch.ones(10, 20), torch.ones(20, 5)
    with roofline.BytesMoved() as moved:
        first @ second
    assert moved.total == 4 * (10 * 20 + 20 * 5 + 10 * 5)


def test_another_look_at_a_tensor_moves_nothing():
    with roofline.BytesMoved() as moved:
        torch.ones(4, 5).T.unflatten(0, (5, 1))
    assert moved.total == 4 * 20


def test_memory_copies_more_than_a_megabyte_and_less_than_a_petabyte_per_second(monkeypatch):
    monkeypatch.setattr(roofline, "COPIED", 2**16)
    assert 1e6 < roofline.memory_bandwidth() < 1e15


def test_the_picture_tells_each_part_with_its_share_of_the_limit(tmp_path):
    works = [roofline.Work("far from memory", 100.0, 5e9), roofline.Work("bound by memory", 0.5, 1e9)]
    file = tmp_path / "roofline.svg"
    roofline.draw(works, peak=1e10, bandwidth=4e9, file=file)
    picture = file.read_text()
    assert "far from memory, 50 %" in picture
    assert "bound by memory, 50 %" in picture
