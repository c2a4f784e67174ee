"""halve's own training, run like a peer: `prepare`, `train`, `convert`, and onnxruntime on the file that it wrote."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks._peers_training import network
from benchmarks._peers_training.network import BATCH_SIZE, load_images, load_weights, read_job, residual
from halve.techniques.compression.quantization.runtime import run_logits
from halve.techniques.compression.quantization.training import Recipe, convert, parity, prepare, train


def main() -> None:
    folder, job = read_job()
    data = {name: tensor.numpy() for name, tensor in load_images(job["files"]["images"]).items()}
    teacher = load_weights(residual(), job["files"]["weights"])
    calibration = {"images": data["train_images"][: network.CALIBRATION_ROWS]}
    student = prepare(
        teacher, calibration, weight_bits=job["weight_bits"], activation_bits=job["activation_bits"], edge_bits=8
    )
    if job["epochs"]:
        recipe = Recipe(
            epochs=job["epochs"],
            learning_rate=job["learning_rate"],
            batch_size=BATCH_SIZE,
            momentum=network.MOMENTUM,
            weight_decay=network.WEIGHT_DECAY,
            frozen_share=network.FROZEN_SHARE,
            distillation=network.DISTILLATION,
            temperature=network.TEMPERATURE,
            seed=job["seed"],
        )
        rows = job["rows"]
        images, labels = data["train_images"][:rows], data["train_labels"][:rows]
        train(student, {"images": images}, labels, recipe=recipe, teacher=teacher)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "model.onnx")
        converted = convert(student, {"images": calibration["images"][:8]}, file)
        report = parity(student, converted, calibration)
        answers = {
            part: run_logits(file, [{"images": rows} for rows in np.split(data[f"{part}_images"], 80)])
            for part in ("held_out", "test")
        }
        size = file.stat().st_size
    np.savez(folder / "answer.npz", **answers, parity_steps=report.largest_steps, file_bytes=size)


if __name__ == "__main__":
    main()
