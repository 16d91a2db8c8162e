"""Images while they are drawn: the same ones, in parts."""

import jax.numpy as jnp
import numpy as np
import pytest
import test_pixelcnn
import test_sampling
from brute import keys_of

import t2i_jax
from t2i_jax.errors import UserError
from t2i_jax.pipelines import batches
from t2i_jax.pipelines.translator import GREY
from t2i_jax.sampling.autoregressive import Autoregressive


def translator():
    model, params, text_ids, mask = test_sampling.translator()
    return model, params["params"], text_ids[:3], mask[:3]


def pixelcnn():
    return *test_pixelcnn.small()[:2], *test_pixelcnn.texts(3)


@pytest.mark.parametrize("case", [translator, pixelcnn])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("window", [1, 3])
def test_parts_end_in_the_ids_of_the_whole(case, scale, window):
    model, params, text_ids, mask = case()
    inputs = model, params, (text_ids, mask, jnp.zeros(3, bool)), keys_of(3)
    sampler = Autoregressive(guidance_scale=scale, window=window)
    expected = np.asarray(sampler.draw(*inputs))
    length = model.num_tokens
    for parts in (1, 2, 4, length, length + 3):
        seen = [(np.array(ids), int(done)) for ids, done in sampler.draw_in_parts(*inputs, parts=parts)]
        assert len(seen) == parts
        for number, (ids, done) in enumerate(seen, start=1):
            share = -(-length * number // parts)
            assert share <= done < share + window
            np.testing.assert_array_equal(ids[:, :done], expected[:, :done])
        assert seen[-1][1] == length


@pytest.fixture(scope="module", params=["translator", "prior"])
def pipe(request, smoke):
    return t2i_jax.load(smoke.run(request.param))


@pytest.mark.parametrize(
    ("parts", "settings"),
    [(1, {}), (5, {"guidance_scale": 2.0}), (24, {"guidance_scale": 1.0, "temperature": 0}), (7, {"window": 4})],
)
def test_pictures_appear_where_their_tokens_are_drawn(pipe, parts, settings):
    expected = pipe(["a red seven"], num_images=3, seed=5, **settings)[0]
    seen = list(pipe.stream("a red seven", 3, 5, parts=parts, **settings))
    shares = [share for share, _ in seen]
    assert len(seen) == parts
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for share, images in seen:
        assert (images.dtype, images.shape) == (np.uint8, expected.shape)
        grey = np.zeros(images.shape[1:3], bool)
        for top, left, bottom, right in pipe.tokenizer.cells[round(24 * share) :]:
            grey[top:bottom, left:right] = True
        assert (images[:, grey] == GREY).all()
        assert share == 1 or grey.any()
    np.testing.assert_array_equal(seen[-1][1], expected)


def test_more_images_than_a_batch_holds_are_drawn_so_many_at_a_time(pipe, monkeypatch):
    monkeypatch.setattr(batches, "SIZES", (1, 2))
    monkeypatch.setattr(batches, "BATCH", 2)
    expected = pipe(["a red seven"], num_images=3, seed=5)[0]
    seen = list(pipe.stream("a red seven", 3, 5, parts=2))
    assert [round(share * 6) for share, _ in seen] == [2, 4, 5, 6]
    assert (seen[1][1][2] == GREY).all()
    np.testing.assert_array_equal(seen[-1][1], expected)


@pytest.mark.parametrize(
    ("prompt", "settings", "said"),
    [
        ("", {}, "prompt 0 is empty"),
        ("a red seven", {"parts": 0}, "parts 0"),
        ("a red seven", {"num_images": 0}, "num_images 0"),
        ("a red seven", {"window": 25}, "window 25 is above the 24 tokens"),
        ("a red seven", {"tempo": 1}, "no setting 'tempo'"),
    ],
)
def test_what_cannot_be_drawn_says_so(pipe, prompt, settings, said):
    for draw in (pipe.stream, pipe.insight):
        if draw == pipe.insight and "parts" in settings:
            continue
        with pytest.raises(UserError, match=said):
            list(draw(prompt, **settings))
