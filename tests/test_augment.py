"""Augmentation against torchvision: the same pixels for the same draws, and draws of the same distribution.

The distributions are put to a test with fixed seeds: it accepts at p > 0.001 and, shown on wrong variants, can fail.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from thriftylib.errors import SpecError
from thriftylib.spec import Augment
from thriftylib.training import autoaugment as policy
from thriftylib.training.augment import augment, crop_and_flip, cutout, cutout_defect, mix
from thriftylib.training.streams import stream

ACCEPT, REJECT = 1e-3, 1e-9
FILL = (125, 123, 114)


def generator(name="test", seed=0):
    return stream("cpu", seed, name)


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator("images", seed))


def p_of(outcomes, expected):
    """Chi-square p-value of hashable outcomes against probabilities; an outcome that cannot be gives 0."""
    counts = Counter(outcomes)
    if set(counts) - set(expected):
        return 0.0
    probabilities = np.array(list(expected.values()))
    return stats.chisquare(
        [counts[key] for key in expected], probabilities / probabilities.sum() * len(outcomes)
    ).pvalue


def p_alike(ours, theirs):
    """Chi-square p-value that two lists of outcomes come from one distribution."""
    counts = [Counter(ours), Counter(theirs)]
    keys = sorted(set(ours) | set(theirs))
    return stats.chi2_contingency([[count[key] for key in keys] for count in counts]).pvalue


def numbered(count, size):
    """Images whose two channels say row and column, from 1 (0 is padding)."""
    row = torch.arange(1, size + 1, dtype=torch.uint8)
    return torch.stack(torch.meshgrid(row, row, indexing="ij")).expand(count, 2, size, size).contiguous()


def placements(images, pad):
    """(top, left, mirrored) of each crop of numbered images, read at the middle, which padding never reaches."""
    middle = images.shape[2] // 2
    rows, columns, next_columns = (
        images[:, 0, middle, middle],
        images[:, 1, middle, middle],
        images[:, 1, middle, middle + 1],
    )
    found = []
    for row, column, next_column in zip(rows.tolist(), columns.tolist(), next_columns.tolist(), strict=True):
        mirrored = next_column < column
        origin = images.shape[3] - 1 - middle if mirrored else middle
        found.append((row - 1 - middle + pad, column - 1 - origin + pad, mirrored))
    return found


def test_crop_and_flip_are_uniform_and_independent():
    expected = dict.fromkeys(product(range(9), range(9), (False, True)), 1)
    images = crop_and_flip(numbered(16_000, 12), 4, generator(), reflect=False, flip=True)
    assert p_of(placements(images, 4), expected) > ACCEPT
    expected = dict.fromkeys(product(range(9), range(9), (False,)), 1)
    images = crop_and_flip(numbered(8_000, 12), 4, generator(), reflect=True, flip=False)
    assert p_of(placements(images, 4), expected) > ACCEPT


def test_a_wrong_crop_or_flip_would_be_noticed():
    expected = dict.fromkeys(product(range(9), range(9), (False, True)), 1)
    images = numbered(16_000, 12)
    assert p_of(placements(crop_and_flip(images, 3, generator(), reflect=False, flip=True), 4), expected) < REJECT
    assert p_of(placements(crop_and_flip(images, 4, generator(), reflect=False, flip=False), 4), expected) < REJECT
    rarely = crop_and_flip(images, 4, generator(), reflect=False, flip=True)
    rarely[:2_000] = crop_and_flip(images[:2_000], 4, generator("more"), reflect=False, flip=False)
    assert p_of(placements(rarely, 4), expected) < REJECT


@pytest.mark.parametrize(("reflect", "mode"), [(False, "constant"), (True, "reflect")])
def test_crops_fall_as_torchvisions(reflect, mode):
    torch.manual_seed(0)
    reference = v2.RandomCrop(12, padding=4, padding_mode=mode)
    theirs = torch.stack([reference(image) for image in numbered(3_000, 12)])
    ours = crop_and_flip(numbered(3_000, 12), 4, generator(), reflect=reflect, flip=False)
    assert p_alike(placements(ours, 4), placements(theirs, 4)) > ACCEPT


@pytest.mark.parametrize(("reflect", "mode"), [(False, "constant"), (True, "reflect")])
@pytest.mark.parametrize(("height", "width", "pad"), [(32, 32, 4), (10, 14, 4), (8, 8, 7)])
def test_each_crop_has_torchvisions_pixels(reflect, mode, height, width, pad):
    images = random_images(60, 3, height, width)
    ours = crop_and_flip(images, pad, generator(), reflect=reflect, flip=True)
    top, left = torch.randint(2 * pad + 1, (2, 60), generator=(same := generator()))
    mirrored = torch.randint(2, (60,), generator=same)
    for index, image in enumerate(images):
        padded = F.pad(image, [pad], padding_mode=mode)
        theirs = F.crop(padded, int(top[index]), int(left[index]), height, width)
        assert torch.equal(ours[index], F.hflip(theirs) if mirrored[index] else theirs)


def boxes(images, fill):
    """(top, bottom, left, right) of each image's pixels that equal ``fill``, which must make a full rectangle."""
    found = []
    for mask in (images == torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1)).all(1):
        rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
        box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None
        assert mask.sum() == (0 if box is None else (box[1] - box[0]) * (box[3] - box[2]))
        found.append(box)
    return found


def spans(size, side):
    return [(max(centre - side // 2, 0), min(centre - side // 2 + side, size)) for centre in range(size)]


@pytest.mark.parametrize("side", [4, 5])
def test_cutout_covers_a_clipped_square_around_any_pixel(side):
    images = torch.zeros(8_000, 3, 12, 10, dtype=torch.uint8)
    covered = cutout(images, side, generator(), FILL)
    expected = dict.fromkeys([rows + columns for rows in spans(12, side) for columns in spans(10, side)], 1)
    assert len(expected) == 120
    assert p_of(boxes(covered, FILL), expected) > ACCEPT
    inside = v2.RandomErasing(p=1, scale=(16 / 120, 16 / 120), ratio=(1, 1), value=1)
    torch.manual_seed(0)
    erased = torch.stack([inside(image) for image in images[:2_000].float()]).to(torch.uint8)
    assert p_of(boxes(erased, (1, 1, 1)), dict.fromkeys(expected, 1)) < REJECT


def test_cutout_leaves_all_other_pixels():
    images = random_images(50, 3, 32, 32)
    covered = cutout(images, 8, generator(), FILL)
    changed = (covered != images).any(1, keepdim=True)
    assert changed.sum((1, 2, 3)).min() >= 4 * 4
    assert changed.sum((1, 2, 3)).max() <= 8 * 8
    fill = torch.tensor(FILL, dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.equal(torch.where(changed, fill, images), torch.where(changed, covered, images))


def test_the_authors_cutout_lies_on_the_diagonal_or_the_left_edge():
    size, side = 32, 8

    def rectangle(top, left):
        first_row, first_column = max(top, 0), 0 if left < 0 else max(top, 0)
        last_row, last_column = top + side, left + side
        return (first_row, last_row, first_column, last_column) if first_column < last_column else None

    draws = range(-(side // 2), size - side)
    expected = Counter(rectangle(top, left) for top in draws for left in draws)
    assert all(box is None or box[2] in (0, box[0]) for box in expected)
    images = torch.full((12_000, 1, size, size), 200, dtype=torch.uint8)
    images[:, :, -1] = 180  # so that the mean, 199.4 and truncated to 199, is no pixel of the image
    covered = cutout_defect(images, side, generator())
    # Cells of a chi-square test need some 5 expected counts: whether it is empty, touches an edge, and its top.
    found = boxes(covered, (199,))
    assert set(found) <= set(expected)
    tops = Counter()
    for box, count in expected.items():
        tops[box and (box[0], box[2] == 0)] += count
    assert p_of([box and (box[0], box[2] == 0) for box in found], tops) > ACCEPT
    rights = Counter()
    for box, count in expected.items():
        rights[box and box[3]] += count
    assert p_of([box and box[3] for box in found], rights) > ACCEPT
    correct = boxes(cutout(images, side, generator(), (199,)), (199,))
    assert not set(correct) <= set(expected)


REFERENCE = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


def their_magnitude(operation, level, size):
    magnitudes = REFERENCE._AUGMENTATION_SPACE[operation][0](10, *size)
    return 0.0 if level is None else float(magnitudes[level])


def their_operation(image, operation, value):
    return REFERENCE._apply_image_or_video_transform(image, operation, value, REFERENCE.interpolation, REFERENCE._fill)


def test_the_policy_is_the_papers():
    """Table 7 of its appendix, of which these are the first and the last two rows; the strengths of its table 6."""
    assert len(REFERENCE._policies) == 25
    assert REFERENCE._policies[:2] == [
        (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
        (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    ]
    assert REFERENCE._policies[-2:] == [
        (("Equalize", 0.8, None), ("Invert", 0.1, None)),
        (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
    ]
    strongest = {"ShearX": 0.3, "TranslateX": 32 * 150 / 331, "TranslateY": 32 * 150 / 331, "Rotate": 30}
    strongest |= {"Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9, "Posterize": 4, "Solarize": 0}
    for operation, value in strongest.items():
        assert policy.magnitude(operation, 9, (32, 32)) == pytest.approx(value)
    unsigned = {name for name in REFERENCE._AUGMENTATION_SPACE if not policy.is_signed(name)}
    assert unsigned == {"Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"}


def test_whole_images_have_torchvisions_pixels_for_the_same_draws():
    images = random_images(400, 3, 32, 32)
    ours = policy.autoaugment(images, generator())
    same = generator()
    chosen = torch.randint(25, (400,), generator=same).tolist()
    chances = torch.rand((400, 2), generator=same).tolist()
    negative = torch.randint(2, (400, 2), generator=same).tolist()
    for index, image in enumerate(images):
        for step, (operation, probability, level) in enumerate(REFERENCE._policies[chosen[index]]):
            if chances[index][step] <= probability:
                minus = REFERENCE._AUGMENTATION_SPACE[operation][1] and negative[index][step]
                value = their_magnitude(operation, level, (32, 32))
                image = their_operation(image, operation, -value if minus else value)
        assert torch.equal(ours[index], image)


# --- AutoAugment as the ThriftyNet authors' code performs it, against the PIL operations that it calls


def by_pil(image, operation, value):
    """One operation as the authors' code calls it, on an image uint8 (C, H, W)."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    size, grey = picture.size, (128, 128, 128)
    match operation:
        case "ShearX":
            made = picture.transform(
                size, Image.Transform.AFFINE, (1, value, 0, 0, 1, 0), Image.Resampling.BICUBIC, fillcolor=grey
            )
        case "ShearY":
            made = picture.transform(
                size, Image.Transform.AFFINE, (1, 0, 0, value, 1, 0), Image.Resampling.BICUBIC, fillcolor=grey
            )
        case "TranslateX":
            made = picture.transform(size, Image.Transform.AFFINE, (1, 0, value, 0, 1, 0), fillcolor=grey)
        case "TranslateY":
            made = picture.transform(size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, value), fillcolor=grey)
        case "Rotate":
            made = picture.rotate(value, fillcolor=grey)
        case "Solarize":
            made = ImageOps.solarize(picture, value)
    return torch.from_numpy(np.array(made)).permute(2, 0, 1)


RELEASED_STEPS = [("ShearX", 7), ("ShearY", 8), ("ShearY", 7), ("TranslateX", 9), ("TranslateX", 8), ("TranslateY", 9)]
RELEASED_STEPS += [("TranslateY", 3), ("Rotate", 2), ("Rotate", 9), *(("Solarize", level) for level in (2, 3, 5, 8))]


@pytest.mark.parametrize(("operation", "level"), RELEASED_STEPS)
def test_released_operations_have_pils_pixels(operation, level):
    images = random_images(6, 3, 32, 32)
    for sign in (1, -1) if operation not in ("Rotate", "Solarize") else (1,):
        value = sign * policy.magnitude(operation, level, (32, 32))
        threshold = value * 256  # of solarising; the others' magnitudes are in pixels, degrees or slopes
        theirs = torch.stack(
            [by_pil(image, operation, threshold if operation == "Solarize" else value) for image in images]
        )
        assert torch.equal(policy.apply_released(images, operation, value), theirs)
        standard = policy.apply(images, operation, value)
        same = (operation, level) in (("Solarize", 5), ("Solarize", 8))  # no whole number between the two thresholds
        assert torch.equal(theirs, standard) == same


def test_released_images_are_solarised_from_256():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for level in range(1, 10):
        threshold = 256 - level * 256 / 9
        released = policy.apply_released(images, "Solarize", policy.magnitude("Solarize", level, (16, 16)))
        # To the last bit of fp32: some thresholds are whole numbers.
        expected = torch.where(images >= torch.linspace(256, 0, 10)[level], 255 - images, images)
        assert torch.equal(released, expected)
        assert policy.magnitude("Solarize", level, (16, 16)) * 256 == pytest.approx(threshold)


def test_a_released_shift_reaches_the_pixel_nearest_to_14_and_a_half():
    images = numbered(1, 32)[:, [0, 1, 1]]
    released = policy.apply_released(images, "TranslateX", policy.magnitude("TranslateX", 9, (32, 32)))
    assert released[0, 1, 0].tolist() == [*range(16, 33), *[128] * 15]
    standard = policy.apply(images, "TranslateX", policy.magnitude("TranslateX", 9, (32, 32)))
    assert standard[0, 1, 0].tolist() == [*[0] * 14, *range(1, 19)]


def test_released_images_turn_one_way_only(monkeypatch):
    done = {True: set(), False: set()}
    for released in done:
        name = "apply_released" if released else "apply"
        monkeypatch.setattr(policy, name, lambda images, *step, to=done[released]: (to.add(step), images)[1])
        policy.autoaugment(random_images(4_000, 3, 8, 8), generator(), released=released)
    turns = {way: {value > 0 for operation, value in steps if operation == "Rotate"} for way, steps in done.items()}
    assert turns == {True: {True}, False: {True, False}}
    both = {way: {operation for operation, value in steps if value < 0} for way, steps in done.items()}
    assert both[False] - both[True] == {"Rotate"}


def test_the_released_policy_is_an_option_of_its_own():
    images = random_images(200, 3, 32, 32)
    way = Augment(autoaugment=True, autoaugment_released=True)
    assert torch.equal(augment(images, way, generator(), FILL), policy.autoaugment(images, generator(), released=True))
    assert not torch.equal(
        augment(images, way, generator(), FILL), augment(images, Augment(autoaugment=True), generator(), FILL)
    )
    assert "autoaugment_released" not in Augment(autoaugment=True).model_dump()
    with pytest.raises(SpecError, match="autoaugment_released = True needs autoaugment = True"):
        Augment(autoaugment_released=True)


def test_sub_policies_chances_and_signs_have_their_probabilities(monkeypatch):
    count = 40_000
    marks = torch.arange(count)
    images = torch.stack([marks // 256, marks % 256, marks * 0], 1).to(torch.uint8).view(count, 3, 1, 1)
    steps = [[] for _ in range(count)]

    def note(images, operation, value):
        for high, low, _ in images.flatten(1).tolist():
            steps[high * 256 + low].append((operation, round(value, 6)))
        return images

    monkeypatch.setattr(policy, "apply", note)
    policy.autoaugment(images, generator())
    expected = Counter()
    for pair in REFERENCE._policies:
        ways = []
        for operation, probability, level in pair:
            value = 0.0 if level is None else policy.magnitude(operation, level, (1, 1))
            signs = (1, -1) if policy.is_signed(operation) else (1,)
            done = [(((operation, round(sign * value, 6)),), probability / len(signs)) for sign in signs]
            ways.append([((), 1 - probability), *done])
        for (first, p), (second, q) in product(*ways):
            if p * q:
                expected[first + second] += p * q
    found = [tuple(step) for step in steps]
    assert p_of(found, expected) > ACCEPT
    twice = [steps + steps[-1:] if len(steps) == 1 else steps for steps in found]
    assert p_of(twice, expected) < REJECT


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_lambda_of_mixup_has_its_beta_distribution(alpha):
    shared, images, labels = generator(), torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    drawn = [float(mix(images, labels, Augment(mixup=alpha), shared)[2]) for _ in range(3_000)]
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > ACCEPT
    assert stats.kstest(drawn, stats.beta(2 * alpha, 2 * alpha).cdf).pvalue < REJECT


def test_mixup_has_torchvisions_pixels_for_the_same_lambda(monkeypatch):
    images, labels = torch.rand(20, 3, 8, 8, generator=generator()), torch.arange(20)
    mixed, partners, own = mix(images, labels, Augment(mixup=1.0), generator("mix"))
    reference = v2.MixUp(alpha=1.0, num_classes=20)
    monkeypatch.setattr(reference, "make_params", lambda _: {"lam": float(own)})
    theirs, shares = reference(images, labels)
    torch.testing.assert_close(mixed, theirs, rtol=0, atol=1e-6)
    one_hot = torch.nn.functional.one_hot
    torch.testing.assert_close(own * one_hot(labels, 20) + (1 - own) * one_hot(partners, 20), shares)


def box_of(mixed, images):
    """(left, top, right, bottom) of the pixels that come from another image."""
    (box,) = boxes((mixed != images).any(1, keepdim=True)[:1].to(torch.uint8), (1,))
    return (0, 0, 0, 0) if box is None else (box[2], box[0], box[3], box[1])


def test_cutmix_has_torchvisions_pixels_for_the_same_box(monkeypatch):
    images, labels = torch.rand(6, 3, 10, 14, generator=generator()), torch.arange(6)
    reference = v2.CutMix(alpha=1.0, num_classes=6)
    shared = generator("mix")
    for _ in range(20):
        mixed, partners, own = mix(images, labels, Augment(cutmix=1.0), shared)
        box = box_of(mixed, images)
        monkeypatch.setattr(
            reference, "make_params", lambda _, box=box, own=own: {"box": box, "lam_adjusted": float(own)}
        )
        theirs, shares = reference(images, labels)
        assert torch.equal(mixed, theirs)
        assert float(own) == pytest.approx(1 - (box[2] - box[0]) * (box[3] - box[1]) / 140)
        one_hot = torch.nn.functional.one_hot
        torch.testing.assert_close(own * one_hot(labels, 6) + (1 - own) * one_hot(partners, 6), shares)


def test_the_box_of_cutmix_is_distributed_as_torchvisions():
    images, labels = torch.rand(2, 1, 16, 24, generator=generator()), torch.arange(2)
    reference = v2.CutMix(alpha=1.0, num_classes=2)
    shared = generator("mix")
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(2_000):
        mixed, _, own = mix(images, labels, Augment(cutmix=1.0), shared)
        ours.append((*box_of(mixed, images), float(own)))
        params = reference.make_params([images])
        left, top, right, bottom = params["box"]
        empty = left == right or top == bottom  # where an empty box lies cannot be seen in our pixels
        theirs.append(((0, 0, 0, 0) if empty else (left, top, right, bottom)) + (params["lam_adjusted"],))
    for mine, reference_values in zip(np.transpose(ours), np.transpose(theirs), strict=True):
        assert stats.ks_2samp(mine, reference_values).pvalue > ACCEPT
    wide = [left + 4 for left, *_ in ours]
    assert stats.ks_2samp(wide, np.transpose(theirs)[0]).pvalue < REJECT


def test_without_mixing_nothing_changes():
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    mixed, partners, own = mix(images, labels, Augment(), generator())
    assert mixed is images
    assert partners is labels
    assert (own.shape, float(own)) == ((), 1.0)


EVERYTHING = Augment(crop=4, crop_padding="reflect", flip=True, autoaugment=True, cutout=8)
WAYS = [Augment(crop=4, flip=True), Augment(flip=True), Augment(autoaugment=True), Augment(cutout=8), EVERYTHING]
WAYS += [Augment(crop=4, cutout=8, cutout_defect=True), Augment(autoaugment=True, autoaugment_released=True)]


@pytest.mark.parametrize("way", WAYS)
def test_the_generator_alone_decides_and_the_input_stays(way):
    images = random_images(50, 3, 32, 32)
    before = images.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = augment(images, way, generator(), FILL)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(augment(images, way, generator(), FILL), first)
    assert not torch.equal(augment(images, way, generator(seed=1), FILL), first)
    assert torch.equal(images, before)
    assert (first.dtype, first.shape) == (torch.uint8, images.shape)
    assert not torch.equal(first, images)


@pytest.mark.parametrize("way", [Augment(mixup=1.0), Augment(cutmix=1.0)])
def test_the_generator_alone_decides_the_mixing(way):
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    before = images.clone()
    state = torch.get_rng_state()
    first = mix(images, labels, way, generator())
    second = mix(images, labels, way, generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[2], mix(images, labels, way, generator(seed=1))[2])
    assert torch.equal(images, before)


def test_the_order_is_crop_flip_autoaugment_cutout():
    images = random_images(40, 3, 32, 32)
    shared = generator()
    step_by_step = crop_and_flip(images, 4, shared, reflect=True, flip=True)
    step_by_step = cutout(policy.autoaugment(step_by_step, shared), 8, shared, FILL)
    assert torch.equal(augment(images, EVERYTHING, generator(), FILL), step_by_step)


def test_images_too_small_are_refused():
    with pytest.raises(SpecError, match="augment.crop = 8: .* not 8x8"):
        augment(random_images(2, 1, 8, 8), Augment(crop=8, crop_padding="reflect"), generator(), (0,))
    with pytest.raises(SpecError, match="augment.cutout = 16: .* 8x8"):
        augment(random_images(2, 1, 8, 8), Augment(cutout=16, cutout_defect=True), generator(), (0,))
