"""Compiling all kernels with a progress bar."""

from __future__ import annotations

from colobench.cli.console import say_error

#: Seconds of compiling after which a kernel is named, where no bar can be shown.
_SILENT_SECONDS = 2.0


def compile_all_kernels() -> int:
    """Compile all kernels that are not in the cache, with a bar; return their number."""
    from tqdm import tqdm

    from colobench.kernels.warmup import Step, kernels_in
    from colobench.node.kernels import all_kernel_modules, compile_kernels

    with tqdm(unit=" kernels", leave=False, disable=None) as bar:

        def progress(step: Step) -> None:
            bar.total = step.total
            bar.set_description_str(f"compiled {step.name}")
            bar.update(step.done - bar.n)
            if step.seconds > _SILENT_SECONDS and bar.disable:
                # Without a terminal, a line for each kernel shows the progress in a log.
                say_error(
                    f"kernel {step.done} of {step.total}, {step.name}, "
                    f"was ready after {step.seconds:.0f} s"
                )

        compile_kernels(all_kernel_modules(), progress)
    return len(kernels_in(all_kernel_modules()))
