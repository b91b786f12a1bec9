"""Memory and time of a step from formulas: to choose what to compile, and for GPUs without their compiler.

Arguments are exact: the state's shapes and shardings are the run's own. The rest is a sum of what must exist at once
in the backward pass of a layer, the worst moment of a step:

- what is kept of every layer for its backward pass, by remat policy;
- one layer computed again, with the gradients of what it computes;
- the weights of two layers gathered (one in use, one on its way), and a layer's gradients before they are summed;
- gradients, and where the loss is largest its tiles and its part of the output projection;
- a share for what the formulas do not name.

A model, not a measurement: it says ``model, not measured`` wherever it is shown.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from alpacare_jax.loss.tiling import CHUNK_BYTES, PIECES, SMALL_BYTES, WIDTHS
from alpacare_jax.model import LlamaConfig
from alpacare_jax.model.llama import parts_of
from alpacare_jax.plan.estimate import REACHED, model_flops
from alpacare_jax.plan.program import Program

if TYPE_CHECKING:
    from jax.sharding import Mesh

BYTES = {"float32": 4, "bfloat16": 2}
AT_ONCE = 0.4
"""Share of a layer's intermediate values that exists at once: the compiler goes back through a layer piece by piece.
Fitted to compiled steps of Llama-2-7B on 16 v5e with 8 and 22 rows a chip."""
BESIDE = 0.1
"""Share of what runs beside the slowest part that is felt all the same."""
UNNAMED = 0.06
"""Share of everything else for buffers that the formulas do not name: copies, fragmentation, workspaces."""


@dataclasses.dataclass(frozen=True)
class Modelled:
    """A step by formulas, per device.

    Args:
        state: Bytes of parameters, moments and whatever else lives between steps.
        gradients: Bytes of gradients, twice where microbatches are summed.
        kept: Bytes kept of all layers for the backward pass.
        working: Bytes of the layer being computed: its values, their gradients, gathered weights.
        loss: Bytes of the loss's tiles and projection.
        limit: Bytes a program may use.
        host: Bytes kept in the host's memory.
        host_limit: What may be kept there for a device; None if it is not known.
        step_s: Estimated seconds of a step.
        flops: Operations of the step, recomputed ones included.
        model_flops: Operations that the mathematics asks for.
        gathered: Bytes received from other devices in a step.
        bound: What the step waits for: ``cores``, ``links``, ``network`` or ``host``.
    """

    state: int
    gradients: int
    kept: int
    working: int
    loss: int
    limit: int
    host: int
    host_limit: int | None
    step_s: float
    flops: float
    model_flops: float
    gathered: float
    bound: str

    @property
    def needed(self) -> int:
        """Bytes of a device's memory that the step should take."""
        return int(self.state + self.gradients + (1 + UNNAMED) * (self.kept + max(self.working, self.loss)))

    @property
    def headroom(self) -> int:
        """Bytes left over."""
        return self.limit - self.needed

    @property
    def fits(self) -> bool:
        """Whether that is within what a program may use, here and in the host's memory."""
        return self.needed <= self.limit and (self.host_limit is None or self.host <= self.host_limit)

    @property
    def recomputed(self) -> float:
        """Operations beyond the model's own, as a share of them."""
        return self.flops / self.model_flops - 1

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        derived = {"needed": self.needed, "fits": self.fits, "recomputed_share": self.recomputed}
        return dataclasses.asdict(self) | derived


def state_bytes(program: Program) -> dict[str, int]:
    """Return bytes per device of each part of the state, from its real shapes and shardings.

    Raises:
        UserError: The mesh does not divide the model.
    """
    from alpacare_jax import sharding
    from alpacare_jax.adapters import bytes_a_device

    # Shapes and shardings are all that is asked of it, which a mesh of no devices can tell as well.
    mesh = cast("Mesh", sharding.abstract_mesh(program.config.mesh, program.place.devices))
    train_step = program.config.train_step(program.model, 1000, mesh)
    train_step.architecture.check_mesh(mesh)
    state = train_step.abstract_state()
    return {field.name: bytes_a_device(getattr(state, field.name)) for field in dataclasses.fields(state)}


def kept_per_token(config: LlamaConfig, remat: str, tensor: int, stream: int, element: int) -> float:
    """Return bytes kept of one layer for each token, on a device.

    Args:
        config: The model's shape.
        remat: Name of the policy.
        tensor: Over how many devices heads and feed-forward width are split.
        stream: Over how many of them the residual stream is split, by its length.
        element: Bytes of an activation.
    """
    D, F, H = config.hidden_size / stream, config.intermediate_size / tensor, config.head_dim
    queries, keys = config.num_attention_heads * H / tensor, config.num_key_value_heads * H / tensor
    attention = queries * element + 4 * config.num_attention_heads / tensor
    projections = (queries + 2 * keys + D + 2 * F) * element
    extra = {
        "full": 0.0,
        "offload": -D * element,
        "attention": attention,
        "projections": projections,
        "products": projections + attention,
        "dots": projections + queries * element,
        # Norms are fp32 inside; the product of gate and up exists as well.
        "none": projections + attention + (3 * D + 2 * F) * element + 2 * D * 4,
    }
    return D * element + extra[remat]


def recomputed_share(config: LlamaConfig, remat: str, seq_len: int) -> float:
    """Return the operations that a policy computes again, as a share of one forward pass through the layers."""
    weights = layer_weights(config)
    attention = 2 * config.num_attention_heads * config.head_dim * seq_len / 2
    # The last product of a layer is needed by nothing in its backward pass.
    again = weights - config.hidden_size * config.intermediate_size + attention
    share = {"none": 0.0, "products": 0.0, "projections": attention, "dots": attention}
    share["attention"] = again - attention
    return share.get(remat, again) / (weights + attention)


def layer_weights(model: LlamaConfig) -> int:
    """Return how many weights of a layer are used in matrix products."""
    attention = (
        2 * model.hidden_size * model.head_dim * (model.num_attention_heads + model.num_key_value_heads)
    )
    return attention + 3 * model.hidden_size * model.intermediate_size


def model_step(program: Program, parts: dict[str, int] | None = None) -> Modelled:
    """Determine a step's memory and time.

    Args:
        program: The step.
        parts: What :func:`state_bytes` returned for this mesh, if it was called before.

    Raises:
        ShardingError: The mesh does not fit the devices or the model.
    """
    config, model, mesh = program.config, program.model, program.mesh
    micro, remat, layers = program.microbatches, config.compute.remat, model.num_hidden_layers
    element, gradient = BYTES[config.compute.dtype], BYTES[config.compute.grad_dtype]
    tokens = program.rows * program.seq_len / (program.shards * mesh["context"] * micro)
    parts = parts or state_bytes(program)
    trained = parts["params"] // BYTES[config.compute.param_dtype]
    weights = layer_weights(model) / mesh["tensor"]

    stream, parts_in_layer = stream_shards(program), parts_through_a_layer(program)
    kept = layers * tokens * kept_per_token(model, remat, mesh["tensor"], stream, element)
    # While a layer is computed its products read the stream whole.
    again = AT_ONCE * tokens / parts_in_layer * kept_per_token(model, "none", mesh["tensor"], 1, element)
    working = again + 2 * weights * element + (0 if config.adapter.on else weights * gradient)
    own = model_flops(program)
    head = 2 * model.vocab_size * model.hidden_size * program.rows * program.seq_len / program.place.devices
    forward = own / (2 if config.adapter.on else 3) - head
    flops = own + forward * recomputed_share(model, remat, program.seq_len)
    host = layers * tokens * model.hidden_size * element / stream if remat == "offload" else 0.0
    times, gathered = _times(program, tokens, flops, micro * host)
    bound = max(times, key=lambda name: times[name])
    return Modelled(
        state=sum(parts.values()),
        gradients=trained * gradient * (2 if micro > 1 else 1),
        kept=int(kept),
        working=int(working),
        loss=int(_loss_bytes(program, tokens, element)),
        limit=program.place.chip.memory_bytes,
        host=int(host),
        host_limit=program.place.host_limit,
        # The others run beside the slowest, never quite for nothing.
        step_s=times[bound] + BESIDE * (sum(times.values()) - times[bound]),
        flops=flops,
        model_flops=own,
        gathered=gathered,
        bound=bound,
    )


def _loss_bytes(program: Program, tokens: float, element: int) -> float:
    """Return bytes of the loss, cut as :mod:`alpacare_jax.loss.tiling` would cut it.

    Args:
        program: The step.
        tokens: Tokens of a device and microbatch.
        element: Bytes of an activation.
    """
    compute, width = program.config.compute, program.model.hidden_size
    table = program.model.vocab_size * width / program.mesh["tensor"]  # of the projection, whole in width
    on_gpu = program.place.chip.platform == "gpu"
    tiling = compute.loss
    if tiling == "auto":
        by_tokens = 4 * table <= SMALL_BYTES or (on_gpu and tokens >= WIDTHS * width)
        tiling = "tokens" if by_tokens else "vocabulary"
    chunk = CHUNK_BYTES
    if compute.loss_chunk_mib is not None:
        chunk = compute.loss_chunk_mib << 20
    elif on_gpu:
        chunk = max(chunk, int(4 * tokens * table / width) // PIECES[tiling])
    # By tokens the projection's gradient is whole in fp32 on every device.
    whole = 4 * table if tiling == "tokens" else 0
    return 2 * chunk + whole + table * element + tokens * width * element * 3


def stream_shards(program: Program) -> int:
    """Return over how many devices of ``tensor`` the residual stream of a row is split, by its length."""
    from alpacare_jax import sharding

    mesh = sharding.abstract_mesh(program.config.mesh, program.place.devices)
    return program.mesh["tensor"] if sharding.divides(mesh, "residual_length", program.seq_len) else 1


def parts_through_a_layer(program: Program) -> int:
    """Return in how many parts a device's rows go through a layer, by ``compute.layer_rows``."""
    rows = program.rows // (program.shards * program.microbatches)
    return parts_of(max(1, rows), program.config.compute.layer_rows)


def most_rows(program: Program) -> int:
    """Return the most rows of a batch that fit by the formulas; the fewest there can be if none does."""
    unit, parts = program.shards * program.microbatches, state_bytes(program)

    def fits(steps: int) -> bool:
        return model_step(program.replace(rows=steps * unit), parts).fits

    low, high = 1, 2
    while fits(high) and high < 1 << 20:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * unit


def _times(program: Program, tokens: float, flops: float, offloaded: float) -> tuple[dict[str, float], float]:
    """Return seconds of cores, links, network and host, and the bytes received from other devices."""
    config, model, chip, place, mesh = (
        program.config,
        program.model,
        program.place.chip,
        program.place,
        program.mesh,
    )
    data, fsdp, tensor, context = mesh.values()
    micro, element = program.microbatches, BYTES[config.compute.dtype]
    gradient = BYTES[config.compute.grad_dtype]
    layers = model.num_hidden_layers
    weights = (layers * layer_weights(model) + 2 * model.vocab_size * model.hidden_size) / tensor
    # Gathered forward and backward, and gradients summed, once for every part of a microbatch that meets them.
    meetings = micro * parts_through_a_layer(program)
    gathers = 2 * meetings * weights * element * (fsdp - 1) / fsdp
    sums = meetings * weights * gradient * (fsdp - 1) / fsdp
    replicas = 2 * weights / fsdp * gradient * (data - 1) / data
    activations = tokens * model.hidden_size * element
    # Two sums forward, two backward and their recomputation, each there and back.
    across = 6 * layers * micro * activations * 2 * (tensor - 1) / tensor
    around = 6 * layers * micro * activations * (context - 1) / context
    within, between = gathers + sums + across + around, 0.0
    if place.slices > 1:
        between = replicas
    elif place.nodes > 1:
        # Between nodes everything but tensor's sums, which stay within one.
        between, within = gathers + sums + replicas, across + around
    else:
        within += replicas
    links = 2 if chip.platform == "tpu" else 1
    seconds = {
        "cores": flops / chip.bf16_flops / REACHED["cores"],
        "links": within / (links * 1e9 * chip.link_gb_s) / REACHED["links"],
        "network": between / (1e9 * chip.network_gb_s) / REACHED["network"],
        "host": 2 * offloaded / (1e9 * chip.host_gb_s) / REACHED["host"],
    }
    return seconds, within + between
