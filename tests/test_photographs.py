"""The judge of photographs: crops as asked are right, those of the next photograph are wrong."""

import numpy as np
import pytest

from t2i_jax.evals import photographs
from t2i_jax.evals.judges import captioned_photos

pytest.importorskip("skimage")


def test_the_judge_and_the_rater_agree_on_right_and_wrong_pictures(monkeypatch):
    as_asked = []

    def beside(pipe, captions, real, seed, candidates):
        as_asked.append(real)
        return {"generated": np.roll(real, 1, axis=0), "real": real}

    def sample(pipe, captions, seed, sampler):
        assert (pipe, seed) == ("pipe", 3)
        assert len(set(captions)) * photographs.PICTURES == len(captions)
        return np.roll(*as_asked, sampler, axis=0).reshape(len(captions), *as_asked[0].shape[2:])

    monkeypatch.setattr(photographs, "PICTURES", 2)
    monkeypatch.setattr(captioned_photos, "beside", beside)
    monkeypatch.setattr(captioned_photos, "sample", sample)
    _, results = captioned_photos.judge("pipe", 3, 1)
    columns, ends = results["nearest_photograph"], results["intervals"]["nearest_photograph"]
    assert columns["real"]["overall"] == 1.0
    assert columns["generated"]["overall"] == 0.0
    rate = captioned_photos.rater("pipe", 3)
    for sampler, kind in enumerate(("real", "generated")):
        assert rate(sampler) == (columns[kind]["overall"], ends[kind]["overall"])
