"""What is packaged with the code: the demo model, built by `scripts/build-demo-model`."""
