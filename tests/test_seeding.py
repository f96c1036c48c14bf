from itertools import product

from nextfail.seeding import derive, generator


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive("test", 0) == 4_841_539_729_131_504_100
    assert derive("test", 0) == derive("test", 0)


def test_different_parts_give_different_seeds() -> None:
    parts = [("a",), ("a", 0), ("a", "0"), (0, "a"), ("a0",), *product(("train", "test", "order"), range(50))]
    assert len({derive(*each) for each in parts}) == len(parts)
    assert all(0 <= derive(*each) < 2**63 for each in parts)


def test_generator_is_seeded_with_them() -> None:
    assert generator("test", 0).initial_seed() == derive("test", 0)
