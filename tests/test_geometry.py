"""Geometry: encoded as plain integers for the ops' schemas."""

import pytest

from glsk import geometry
from glsk.geometry import Geometry


def test_encode_and_decode_are_inverse() -> None:
    layers = [Geometry(*range(13)), geometry.linear(5, 7, relu=True)]
    assert geometry.decode(geometry.encode(layers)) == layers


@pytest.mark.parametrize("values", [[], [1] * 12, [1] * 14])
def test_a_broken_encoding_is_refused(values: list[int]) -> None:
    with pytest.raises(ValueError, match="geometry"):
        geometry.decode(values)


def test_sizes() -> None:
    layer = Geometry(3, 8, 6, 5, 4, 2, 3, 2, 2, 3, 1, 0, 1)
    assert (layer.in_features, layer.out_features, layer.weight_shape) == (144, 40, (5, 3, 3, 2))
    assert not layer.is_linear
    assert geometry.linear(4, 2, relu=False).is_linear


@pytest.mark.parametrize("change", [{"pad_height": 1, "stride_height": 3}, {"pad_width": 1, "out_width": 3}])
def test_a_padded_single_pixel_is_not_a_plain_matrix(change: dict[str, int]) -> None:
    assert not geometry.linear(4, 2, relu=False)._replace(**change).is_linear
