"""Memory that libraries ask for beside what a program says, which a compiler without a GPU cannot ask them about."""

import math

from alpacare_jax.plan.hlo import Module


def attention_workspace(module: Module) -> int:
    """Return bytes to allow for the workspace of cuDNN's attention, of which one call is at work at a time.

    Its backward pass sums the gradient of the queries in fp32, and one number for each of the statistics that the
    forward pass leaves. What cuDNN really asks for stands in a program that was compiled on a GPU.

    Args:
        module: The compiled program.
    """
    most = 0
    for computation in module.computations.values():
        for line in computation.instructions.values():
            if line.opcode != "custom-call" or "__cudnn$fmhaSoftmaxBackward" not in line.rest:
                continue
            given = [computation.instructions[name].shapes[0] for name in line.operands[:5]]
            queries = given[0]
            statistics = next((shape.bytes for shape in given if shape.dtype == "f32"), 0)
            most = max(most, 4 * math.prod(queries.sizes) + statistics)
    return most
