from modeling_metaqap.training.samplers import EndlessSampler, EpochSampler


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    assert list(sampler) == first == list(EpochSampler(50, seed=3))
    assert [epoch for epoch, _ in first] == [0] * 50
    assert sorted(index for _, index in first) == list(range(50))
    orders = {tuple(index for _, index in first)}
    for other in (EpochSampler(50, seed=4), sampler):
        other.set_epoch(1)
        assert {epoch for epoch, _ in other} == {1}
        orders.add(tuple(index for _, index in other))
    assert len(orders) == 3


def test_an_epoch_can_be_continued_in_its_middle():
    sampler = EpochSampler(20, seed=0)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, skip=13)
    assert list(sampler) == whole[13:]
    assert len(sampler) == 7


def test_the_endless_order_is_that_of_one_epoch_after_the_other_and_starts_anywhere():
    epochs = EpochSampler(7, seed=5)
    expected = []
    for epoch in range(4):
        epochs.set_epoch(epoch)
        expected += list(epochs)
    sampler = EndlessSampler(7, seed=5)
    for start in (0, 6, 7, 17):
        sampler.start = start
        found = [item for item, _ in zip(sampler, range(28 - start), strict=False)]
        assert found == expected[start:]
