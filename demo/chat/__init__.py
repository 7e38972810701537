"""The live chat: a Gradio page on which a person points a camera, a file or a stream at the model and talks to it."""
