"""Products and nonlinearities whose gradients suit the hardware.

Size letters: B batch, I inputs, O outputs.
"""

import jax
import jax.numpy as jnp

from grokjax.core import platforms

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "quadratic": jnp.square}


def _copied(x: jax.Array) -> jax.Array:
    """Writes a transpose out, on a CPU.

    XLA's CPU backend multiplies over the first axis of both factors at a lower rate than other products, and folds a
    plain transpose back into that form; the barrier keeps it from doing so. Other backends need no copy.
    """
    return platforms.choose(jax.lax.optimization_barrier, lambda x: x, x)


@jax.custom_vjp
def dense(x_BxI, W_IxO, b_O):
    """x @ W + b for I < O; the gradient of W from a transposed copy of x, the narrower factor."""
    return _affine(x_BxI, W_IxO, b_O)


def _affine(x_BxI, W_IxO, b_O):
    return platforms.choose_gpu(_with_ones, lambda x_BxI, W_IxO, b_O: x_BxI @ W_IxO + b_O, x_BxI, W_IxO, b_O)


def _with_ones(x_BxI, W_IxO, b_O):
    """x @ W + b as one product, x having more columns: 1 and three times 0, so that a row is whole vectors of 16 bytes.

    A GPU's sum would be a kernel of its own, since a product takes in what is done to its factors, but no sum. A TPU's
    takes in both, and pads 132 columns to 256.
    """
    more_Bx4 = jnp.broadcast_to(jnp.array([1, 0, 0, 0], x_BxI.dtype), (x_BxI.shape[0], 4))
    rows = [W_IxO, b_O[None], jnp.zeros((3, b_O.size), b_O.dtype)]
    return jnp.concatenate([x_BxI, more_Bx4], 1) @ jnp.concatenate(rows)


dense.defvjp(
    lambda x_BxI, W_IxO, b_O: (_affine(x_BxI, W_IxO, b_O), (x_BxI, W_IxO)),
    lambda kept, ct_BxO: (ct_BxO @ kept[1].T, _copied(kept[0].T) @ ct_BxO, jnp.sum(ct_BxO, 0)),
)


@jax.custom_vjp
def dense_transposed(x_BxI, W_OxI):
    """x @ W.T; the gradient of W from a transposed copy of its cotangent, and in W's own axes, ready to be summed."""
    return x_BxI @ W_OxI.T


dense_transposed.defvjp(
    lambda x_BxI, W_OxI: (x_BxI @ W_OxI.T, (x_BxI, W_OxI)),
    lambda kept, ct_BxO: (ct_BxO @ kept[1], _copied(ct_BxO.T) @ kept[0]),
)


@jax.custom_vjp
def _relu(x):
    """max(x, 0); its gradient is a product with the sign of the result, which vectorizes where a select does not."""
    return jax.nn.relu(x)


def _relu_forward(x):
    positive = jax.nn.relu(x)
    return positive, positive


_relu.defvjp(_relu_forward, lambda positive, ct: (ct * jnp.sign(positive),))
FACTORED_ACTIVATIONS = ACTIVATIONS | {"relu": _relu}
