"""Networks that others trained, explained: pitch, faces, speech, voices, spelling; here, and behind two servers.

Behind "server" there is ours, which explains. The "plain" one gives predictions alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch import explanation_path as way
from aiaas_sdk.server import oip as server_oip
from aiaas_sdk.server import serve_in_thread

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
from tests.explaining import real  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]
SAMPLES = np.arange(1024) / 16_000
"""Seconds of a frame's samples."""
MODELS = ("crepe", "onet", "pnet", "silero", "voice", "sounds")


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    return {name: getattr(real, name)() for name in MODELS}


@pytest.fixture(scope="module")
def places(modules: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The address of a model, by where it is and its name."""
    folder = tmp_path_factory.mktemp("real")
    examples = {
        "crepe": np.ones((1, 1024), np.float32),
        "onet": np.zeros((1, 3, 48, 48), np.float32),
        "pnet": np.zeros((1, 3, 20, 24), np.float32),
        "silero": {"x": np.zeros((1, 576), np.float32), "state": np.zeros((2, 1, 128), np.float32)},
        "voice": np.ones((1, 8, 40), np.float32),
        "sounds": {"letters": np.ones((1, 5), np.int64), "sounds": np.ones((1, 4), np.int64)},
    }
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIAAS_HOME", str(folder / "home"))
            here = {name: aiaas.save(modules[name], folder / name, example=examples[name]) for name in MODELS}
            server = stack.enter_context(serve_in_thread(list(here.values())))
            patch.setattr(server_oip, "EXTENSIONS", tuple(one for one in server_oip.EXTENSIONS if one != "explain"))
            plain = stack.enter_context(serve_in_thread(list(here.values())))
        urls = {"server": server, "plain": plain}
        yield lambda where, name: here[name] if where == "here" else f"{urls[where]}/v2/models/{name}"


@pytest.fixture
def opened(load: Any, places: Any) -> Any:
    """A model, by where it is and its name."""
    return lambda where, name: load(places(where, name), timeout=200)


def pictures(name: str) -> Any:
    images = real.golden(name)["in_image"].astype(np.float32)
    return np.ascontiguousarray((images.transpose(0, 3, 1, 2) - 127.5) / 128)


def correlation(found: Any, wanted: Any) -> float:
    return float(np.corrcoef(np.ravel(found), np.ravel(wanted))[0, 1])


# ---------------------------------------------------------------- several outputs
@pytest.mark.parametrize("where", ["here", "server"])
def test_of_several_outputs_one_is_named(opened: Any, modules: Any, where: str) -> None:
    x = pictures("mtcnn_onet")[:1]
    model = opened(where, "onet")
    found = model.explain(x, target="prob[1]", method="saliency")
    given = torch.from_numpy(x).requires_grad_()
    wanted = attr.Saliency(lambda image: modules["onet"](image)["prob"]).attribute(given, target=1).numpy()
    assert (found.output, found.target) == ("prob", (1,))
    assert np.abs(found.array - wanted).max() < 1e-6
    assert np.array_equal(model.explain(x, target="prob", method="saliency").array, found.array), "it says: a face"
    eye = model.explain(x, target="points[0]", method="saliency")
    assert (eye.output, eye.target) == ("points", (0,))
    assert correlation(eye.array, found.array) < 0.95
    with pytest.raises(aiaas.InputError, match=r"no labels\. Give an index, an output \(box, points, prob\)"):
        model.explain(x, target="face")
    with pytest.raises(aiaas.InputError, match=r"no place 'prob\[2\]'"):
        model.explain(x, target="prob[2]")
    with pytest.raises(aiaas.InputError, match="targets are in several outputs, box, prob"):
        model.explain(np.concatenate((x, x)), target=["prob[1]", "box[0]"])


def test_a_face_is_where_the_map_says(opened: Any, modules: Any) -> None:
    x = pictures("mtcnn_onet")[:2]
    found = opened("here", "onet").explain(x, target="prob[1]", method="grad_cam").array
    module = modules["onet"]
    method = attr.LayerGradCam(lambda image: module(image)["prob"], module.prelu4)
    maps = method.attribute(torch.from_numpy(x).requires_grad_(), target=1, relu_attributions=True)
    wanted = attr.LayerAttribution.interpolate(maps, (48, 48), "bilinear").detach().numpy()
    assert np.abs(found - wanted).max() < 1e-5
    assert found.max() > 0


@pytest.mark.parametrize("where", ["here", "plain"])
def test_without_its_middle_a_face_is_none(opened: Any, where: str) -> None:
    """Windows over the middle of the picture cost more than those at its rim."""
    found = opened(where, "onet").explain(pictures("mtcnn_onet")[1:2], target="prob[1]", method="occlusion").array[0, 0]
    middle = found[12:36, 12:36].mean()
    assert middle > 2 * np.concatenate((found[:8].ravel(), found[-8:].ravel())).mean()


# ---------------------------------------------------------------- maps, of any size
@pytest.mark.parametrize(("where", "method"), [("here", "saliency"), ("server", "saliency"), ("plain", "occlusion")])
def test_a_place_in_a_map_sees_its_own_field(opened: Any, where: str, method: str) -> None:
    """Each place of pnet's map sees 12 x 12 pixels, and the next one those two pixels further on."""
    x = pictures("mtcnn_pnet")[:1, :, :30, :44]
    model = opened(where, "pnet")
    prob = model.predict(x)["prob"]
    high, wide = prob.shape[2:]
    y, x_ = np.unravel_index(prob[0, 1].argmax(), (high, wide))
    found = model.explain(x, target=f"prob[1,{y},{x_}]", method=method)
    assert found.target == (np.ravel_multi_index((1, y, x_), (2, high, wide)),)
    assert np.array_equal(model.explain(x, target=f"prob[1, {y}, {x_}]", method=method).array, found.array)
    size = np.abs(found.array).sum((0, 1))
    # a window of occlusion is 5 x 7 pixels, and one that touches the field has its share outside, too
    rim = (0, 0) if method == "saliency" else (5, 7)
    inside = np.zeros((30, 44), bool)
    inside[max(0, 2 * y - rim[0]) : 2 * y + 12 + rim[0], max(0, 2 * x_ - rim[1]) : 2 * x_ + 12 + rim[1]] = True
    assert size[inside].sum() > 0
    assert size[~inside].max(initial=0) < 1e-6


@pytest.mark.parametrize("where", ["here", "server", "plain"])
def test_a_map_has_no_one_answer(opened: Any, where: str) -> None:
    model, x = opened(where, "pnet"), pictures("mtcnn_pnet")[:1]
    with pytest.raises(aiaas.InputError, match=r"gives \[2, 15, 19\] numbers a row.*target='prob\[1,14,18\]'"):
        model.explain(x, target="prob", method="occlusion")
    for target in ("prob[1,15,0]", "prob[1]"):
        with pytest.raises(aiaas.InputError, match=r"no target.*'prob' has \[2, 15, 19\] numbers a row"):
            model.explain(x, target=target, method="occlusion")


def test_a_head_of_another_output_has_no_map_for_this_one(opened: Any, modules: Any) -> None:
    x, module = pictures("mtcnn_pnet")[:1], modules["pnet"]
    for output, last in (("prob", module.conv4_1), ("box", module.conv4_2)):
        found = opened("here", "pnet").explain(x, target=f"{output}[1,7,9]", method="grad_cam").array
        method = attr.LayerGradCam(lambda image, output=output: module(image)[output], last)
        maps = method.attribute(torch.from_numpy(x).requires_grad_(), target=(1, 7, 9), relu_attributions=True)
        wanted = attr.LayerAttribution.interpolate(maps, (40, 48), "bilinear").detach().numpy()
        assert np.abs(found - wanted).max() < 1e-6


# ---------------------------------------------------------------- pitch
def planted() -> Any:
    """A frame of noise with a tone of 440 Hz from sample 384 to 640."""
    frame = 0.05 * np.random.default_rng(0).standard_normal(1024)
    frame[384:640] += np.sin(2 * np.pi * 440 * SAMPLES[384:640])
    return ((frame - frame.mean()) / frame.std(ddof=1)).astype(np.float32)[None]


@pytest.mark.parametrize(("where", "method"), [("here", "saliency"), ("here", "smoothgrad"), ("plain", "occlusion")])
def test_a_tone_is_heard_where_it_sounds(opened: Any, modules: Any, where: str, method: str) -> None:
    x = planted()
    found = opened(where, "crepe").explain(x, method=method)
    with torch.no_grad():
        assert found.target == (int(modules["crepe"](torch.from_numpy(x)).argmax()),)
    assert abs(found.target[0] - 228) <= 2, "440 Hz, by 20 cents"
    size = np.abs(found.array[0])
    assert 384 <= size.argmax() < 640
    if method == "occlusion":  # gradients also say what could be
        assert size[384:640].sum() > 0.8 * size.sum()


def test_a_map_is_spread_over_samples(opened: Any, modules: Any) -> None:
    """The network itself makes (B, 1, 1024, 1) of them; the last map has 8 places."""
    x, module = real.golden("crepe_tiny")["in_frames"][:1], modules["crepe"]
    found = opened("here", "crepe").explain(x, target=138, method="grad_cam").array
    method = attr.LayerGradCam(module, module.conv6)
    maps = method.attribute(torch.from_numpy(x).requires_grad_(), target=138, relu_attributions=True)
    wanted = attr.LayerAttribution.interpolate(maps[..., 0], (1024,), "linear").detach().numpy()
    assert maps.shape == (1, 1, 8, 1)
    assert np.abs(found - wanted[:, 0]).max() < 1e-6
    assert found.max() > 0


def test_pitch_by_captums_own_hand(opened: Any, modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIECES", 1), ("POINTS", 8), ("MOST", 0)):
        monkeypatch.setattr(way, name, value)
    x, module = torch.from_numpy(planted()), modules["crepe"]
    found = opened("here", "crepe").explain(planted(), target=228, method="integrated_gradients")
    wanted = attr.IntegratedGradients(module).attribute(x, target=228, n_steps=8)
    assert np.abs(found.array - wanted.detach().numpy()).max() < 1e-5
    with torch.no_grad():
        change = (module(x) - module(torch.zeros_like(x)))[0, 228]
    assert found.completeness_error == pytest.approx(abs(float(found.array.sum()) - float(change)), abs=1e-5)


# ---------------------------------------------------------------- a state whose rows aren't the first axis
@pytest.fixture(scope="module")
def heard(modules: Any) -> dict[str, Any]:
    """The 55th chunk of a spoken command, and the state before it; and what it is after chunk 8."""
    pcm = (real.golden("silero_vad")["in_pcm"] / 32768).astype(np.float32)
    state, chunks, states = torch.zeros(2, 1, 128), [], []
    for place in range(55):
        begin = 512 * place
        chunk = np.concatenate((np.zeros(64, np.float32) if place == 0 else pcm[begin - 64 : begin], pcm[begin:][:512]))
        chunks.append(chunk)
        states.append(state.numpy())
        with torch.no_grad():
            state = modules["silero"](torch.from_numpy(chunk[None]), state)["next_state"]
    return {"x": np.stack((chunks[54], chunks[8])), "state": np.concatenate((states[54], states[8]), axis=1)}


def by_rows(module: Any) -> Any:
    """The chance of speech for a state whose first axis is rows, as captum wants it."""
    return lambda x, state: module(x, state.transpose(0, 1))["speech"]


@pytest.mark.parametrize("where", ["here", "server"])
def test_speech_and_the_state_before_it(opened: Any, modules: Any, heard: Any, where: str) -> None:
    one = {"x": heard["x"][:1], "state": heard["state"][:, :1]}
    model = opened(where, "silero")
    found = model.explain(one)
    assert (found.method, found.output, found.target) == ("integrated_gradients", "speech", None)
    assert (found["x"].shape, found["state"].shape) == ((1, 576), (2, 1, 128))
    said, nothing = (model.predict(x)["speech"][0, 0] for x in (one, {k: np.zeros_like(v) for k, v in one.items()}))
    assert said > 0.99
    assert abs(found["x"].sum() + found["state"].sum() - (said - nothing)) < 1e-3
    assert found.completeness_error < 1e-3
    if where == "here":
        given = (torch.from_numpy(one["x"]), torch.from_numpy(one["state"].swapaxes(0, 1).copy()))
        method = attr.IntegratedGradients(by_rows(modules["silero"]))
        wanted = method.attribute(given, target=0, n_steps=256, internal_batch_size=64)
        assert correlation(found["x"], wanted[0].detach().numpy()) > 0.98
        assert correlation(found["state"][:, 0], wanted[1].detach().numpy()[0]) > 0.98


@pytest.mark.parametrize("where", ["here", "server"])
def test_rows_of_a_state_stay_with_theirs(opened: Any, modules: Any, heard: Any, where: str) -> None:
    """Gradients of 9 rows, which is more than are explained at once."""
    rows = [0, 1, 0, 0, 1, 1, 0, 1, 0]
    found = opened(where, "silero").explain(
        {"x": heard["x"][rows], "state": heard["state"][:, rows]}, method="saliency"
    )
    given = (torch.from_numpy(heard["x"]), torch.from_numpy(heard["state"].swapaxes(0, 1).copy()))
    wanted = attr.Saliency(by_rows(modules["silero"])).attribute(tuple(one.requires_grad_() for one in given), target=0)
    assert np.abs(found["x"] - wanted[0].numpy()[rows]).max() < 1e-5
    assert np.abs(found["state"] - wanted[1].numpy().swapaxes(0, 1)[:, rows]).max() < 1e-5


@pytest.mark.parametrize("where", ["here", "plain"])
def test_without_gradients_speech_is_explained_by_its_samples(
    opened: Any, modules: Any, heard: Any, where: str
) -> None:
    """Faint noise instead of the first half of the samples has next to no share."""
    x = heard["x"].copy()
    x[:, :288] = 1e-4 * np.random.default_rng(0).standard_normal((2, 288))
    found = opened(where, "silero").explain({"x": x, "state": heard["state"]}, method="occlusion")
    assert (found["x"].shape, found["state"].shape) == ((2, 576), (2, 2, 128))
    share = np.abs(found["x"][0])
    assert share[:264].sum() < 0.1 * share.sum()
    with torch.no_grad():
        empty = x[:1].copy()
        empty[0, 300:303] = 0
        state = torch.from_numpy(heard["state"][:, :1])
        full, left = (modules["silero"](torch.from_numpy(one), state)["speech"] for one in (x[:1], empty))
    assert found["x"][0, 300:303] == pytest.approx(float(full - left), abs=1e-6)


def test_where_there_is_no_map_it_says_what_needs_none(opened: Any, heard: Any) -> None:
    with pytest.raises(aiaas.InputError, match=r"grad_cam has nothing to show.*occlusion need no map"):
        opened("here", "silero").explain(heard, method="grad_cam")


def test_digital_silence_has_an_explanation(opened: Any) -> None:
    """The gradient of a root is infinite at 0, and what is nothing has no share of anything."""
    silence = {"x": np.zeros((1, 576), np.float32), "state": np.zeros((2, 1, 128), np.float32)}
    model = opened("here", "silero")
    found = model.explain(silence, method="integrated_gradients")
    assert (found["x"] == 0).all()
    assert found.completeness_error < 1e-6  # two passes over the same rows may round differently
    with pytest.raises(aiaas.InputError, match=r"saliency found a gradient that is infinite or NaN.*occlusion"):
        model.explain(silence, method="saliency")


# ---------------------------------------------------------------- voices
@pytest.mark.parametrize("where", ["here", "server"])
def test_frames_of_no_energy_weigh_little(
    opened: Any, modules: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PIECES", 1), ("POINTS", 32), ("MOST", 0)):
        monkeypatch.setattr(way, name, value)
    mel = real.golden("voice_encoder")["in_mel"][:1, 40:64].copy()
    mel[:, 8:16] *= 1e-6
    found = opened(where, "voice").explain(mel, method="integrated_gradients")
    given = torch.from_numpy(mel)
    wanted = attr.IntegratedGradients(modules["voice"]).attribute(given, target=found.target[0], n_steps=32)
    assert np.abs(found.array - wanted.detach().numpy()).max() < 1e-5
    size = np.abs(found.array[0]).sum(1)
    assert size[8:16].sum() < 1e-3 * size.sum()
    assert found.completeness_error < 1e-3


@pytest.mark.parametrize("where", ["here", "plain"])
def test_voices_by_their_frames(opened: Any, where: str) -> None:
    mel = real.golden("voice_encoder")["in_mel"][:1, 40:64].copy()
    mel[:, 8:16] *= 1e-6
    size = np.abs(opened(where, "voice").explain(mel, method="occlusion").array[0]).sum(1)
    assert size[10:14].sum() < 1e-3 * size.sum()
    with pytest.raises(aiaas.InputError, match=r"grad_cam needs .*voice can be explained by.*occlusion"):
        opened(where, "voice").explain(mel, method="grad_cam")


# ---------------------------------------------------------------- whole numbers, two inputs, an answer for each step
@pytest.fixture(scope="module")
def word() -> dict[str, Any]:
    """ "tensor" and its sounds T EH1 N S ER0, the next one at each step."""
    right = real.golden("g2p")
    row = right["words"].tolist().index("tensor")
    letters, sounds = right["in_graphemes"][row], right["in_phonemes"][row]
    assert right["out_text"][row] == "T EH1 N S ER0"
    return {"letters": letters[letters >= 0][None], "sounds": sounds[sounds >= 0][None]}


def several(word: Any) -> tuple[dict[str, Any], list[str]]:
    """A row for each of T, EH1, N and S, and each as the target of its own step."""
    targets = [f"output[{step},{word['sounds'][0, step + 1]}]" for step in range(4)]
    return {name: np.repeat(array, 4, axis=0) for name, array in word.items()}, targets


@pytest.mark.parametrize("where", ["here", "server"])
def test_the_letter_that_decides_a_sound(opened: Any, modules: Any, word: Any, where: str) -> None:
    inputs, targets = several(word)
    found = opened(where, "sounds").explain(inputs, target=targets)
    assert (found.method, found.completeness_error < 1e-3) == ("integrated_gradients", True)
    assert [np.unravel_index(one, (6, 74))[0] for one in found.target] == [0, 1, 2, 3]
    assert found["letters"].argmax(1).tolist() == [0, 1, 2, 3], "t, e, n and s"
    if where == "here":
        module = modules["sounds"]
        with pytest.warns(UserWarning, match="Multiple layers"):
            method = attr.LayerIntegratedGradients(module, [module.enc_emb, module.dec_emb])
        given = (torch.from_numpy(inputs["letters"]), torch.from_numpy(inputs["sounds"]))
        places = [tuple(map(int, np.unravel_index(one, (6, 74)))) for one in found.target]
        wanted = method.attribute(given, baselines=tuple(map(torch.zeros_like, given)), target=places, n_steps=64)
        for name, one in zip(("letters", "sounds"), wanted, strict=True):
            assert np.abs(found[name] - one.sum(-1).detach().numpy()).max() < 1e-3


@pytest.mark.parametrize("where", ["here", "plain"])
def test_without_its_letter_a_sound_is_lost(opened: Any, modules: Any, word: Any, where: str) -> None:
    inputs, targets = several(word)
    found = opened(where, "sounds").explain(inputs, target=targets, method="occlusion")
    given = (torch.from_numpy(inputs["letters"]), torch.from_numpy(inputs["sounds"]))
    places = [tuple(map(int, np.unravel_index(one, (6, 74)))) for one in found.target]
    with torch.no_grad():
        wanted = attr.FeatureAblation(modules["sounds"]).attribute(given, target=places)
    for name, one in zip(("letters", "sounds"), wanted, strict=True):
        assert np.abs(found[name] - one.numpy()).max() < 1e-4
    assert found["letters"].argmax(1).tolist()[1:] == [1, 2, 3], "e, n and s"


def test_what_whole_numbers_cannot_be_explained_by(opened: Any, word: Any) -> None:
    with pytest.raises(
        aiaas.InputError, match=r"grad_cam needs a convolution.*by integrated_gradients, saliency, .*occlusion, shap"
    ):
        opened("here", "sounds").explain(word, method="grad_cam")
    with pytest.raises(aiaas.InputError, match=r"gives \[6, 74\] numbers a row.*target='output\[5,73\]'"):
        opened("here", "sounds").explain(word)
