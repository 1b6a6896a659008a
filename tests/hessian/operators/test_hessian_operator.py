"""H v of functions whose Hessian is known."""

import numpy as np
import pytest
import torch

from skdmap.hessian import HessianOperator, hessian_operator


def quartic(theta):
    return (theta**4).sum() / 12


def test_a_quartic_has_the_squares_on_the_diagonal():
    point = np.array([1.0, -2.0, 0.5])
    with hessian_operator(quartic, point) as hessian:
        product = np.stack([hessian(unit) for unit in np.eye(3)])
        np.testing.assert_array_equal(product, np.diag(point**2))
        np.testing.assert_allclose(hessian.gradient.numpy(), point**3 / 3, rtol=1e-15)
        assert hessian.loss == pytest.approx((point**4).sum() / 12, rel=1e-15)
        assert hessian.n_matvecs == 3


def test_the_operator_of_a_sum_is_the_sum_of_the_operators():
    theta = torch.tensor([0.3, 1.2, -0.7], dtype=torch.float64)
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    terms = [quartic, lambda t: t.prod(), lambda t: t.sin().sum()]
    parts = [HessianOperator([term], theta) for term in terms]
    with HessianOperator(terms, theta) as whole:
        assert whole.loss == pytest.approx(sum(part.loss for part in parts), rel=1e-15)
        torch.testing.assert_close(whole(v), sum(part(v) for part in parts))
        torch.testing.assert_close(whole.gradient, sum(part.gradient for part in parts))


@pytest.mark.parametrize("loss", [lambda t: t.sum(), lambda t: (0 * t).sum(), lambda t: t[0]])
def test_a_linear_loss_has_a_hessian_of_zeros(loss):
    with hessian_operator(loss, np.ones(3)) as hessian:
        assert hessian(np.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_a_parameter_that_is_not_used_gets_zeros():
    with hessian_operator(lambda t: t[0] ** 2, np.ones(2)) as hessian:
        assert hessian(np.ones(2)).tolist() == [2.0, 0.0]
        assert hessian.gradient.tolist() == [2.0, 0.0]


def test_arrays_give_arrays_and_tensors_give_tensors():
    with HessianOperator([quartic], torch.ones(2)) as hessian:
        assert isinstance(hessian(np.ones(2)), np.ndarray)
        assert hessian(np.ones(2)).dtype == np.float64
        assert hessian(torch.ones(2)).dtype == torch.float32


def test_a_closed_operator_makes_no_product():
    with hessian_operator(quartic, np.ones(2)) as hessian:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        hessian(np.ones(2))


def test_a_vector_of_the_wrong_length_is_named():
    with (
        hessian_operator(quartic, np.ones(2)) as hessian,
        pytest.raises(ValueError, match=r"v has shape \(3,\); it must be \(2,\)"),
    ):
        hessian(np.ones(3))


def test_the_point_given_is_not_changed():
    point = np.ones(2)

    def greedy(theta):
        with torch.no_grad():
            value = theta.clone()
        return (theta * value.fill_(2.0)).sum()

    with hessian_operator(greedy, point):
        assert point.tolist() == [1.0, 1.0]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].exp()


class Askew(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x[0] * x[1]

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.stack([x[1], 2 * x[0]])


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (lambda t: t, ValueError, r"shape \(2,\); it must be a scalar"),
        (lambda t: 3.0, TypeError, "loss returned float"),
        (lambda t: (t - 1).log().sum(), ValueError, "loss=-inf at this point; it must be finite"),
        (lambda t: (t - 1).abs().sqrt().sum(), ValueError, "gradient with entries that are not"),
        (lambda t: ((t - 1) ** 1.5).sum(), ValueError, "Hessian with entries that are not finite"),
        (lambda t: torch.ones(()), ValueError, "not differentiable"),
        (lambda t: t.detach().sum(), ValueError, "not differentiable"),
        (lambda t: (Once.apply(t) ** 2).sum(), ValueError, "cannot be differentiated twice"),
        (lambda t: (t * Once.apply(2 * t)).sum(), ValueError, "marked @once_differentiable"),
        (lambda t: Askew.apply(t), ValueError, "not symmetric"),
        (lambda t: (t * torch.rand(2)).sum(), ValueError, "not deterministic"),
    ],
)
def test_a_loss_without_a_hessian_is_an_error(loss, kind, message):
    with pytest.raises(kind, match=message):
        hessian_operator(loss, np.ones(2))


def test_an_error_inside_the_loss_says_with_what_it_was_called():
    with pytest.raises(RuntimeError) as caught:
        hessian_operator(lambda t: (torch.ones(2, 2) @ t).sum(), np.ones(2))
    (note,) = caught.value.__notes__
    assert "with a float64 tensor of shape (2,)" in note
    assert "EmpiricalRisk" in note


def test_a_loss_is_differentiated_where_gradients_are_switched_off():
    with torch.no_grad(), hessian_operator(quartic, np.array([1.0, 2.0])) as hessian:
        assert hessian(np.ones(2)).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_noise_above_half_of_the_digits_is_not_deterministic(size):
    sign = iter([1.0, -1.0])
    with pytest.raises(ValueError, match="not deterministic"):
        hessian_operator(lambda t: quartic(t) * (1 + size * next(sign)), np.ones(2))


def test_terms_of_single_precision_are_added_up_in_double():
    """1e8 + 1 - 1e8 is 0 in float32."""
    terms = [lambda t, c=c: c * t.square().sum() / 2 for c in (1e8, 1.0, -1e8)]
    point = torch.tensor([1.0, 2.0])
    with HessianOperator(terms, point) as hessian:
        assert hessian.dtype == torch.float32
        np.testing.assert_array_equal(hessian.gradient.numpy(), [1.0, 2.0])
        np.testing.assert_array_equal(hessian(np.array([3.0, 4.0])), [3.0, 4.0])
        assert hessian.loss == 2.5
