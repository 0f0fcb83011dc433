"""What people type that is called otherwise here: other names of commands, and where else to look."""

from __future__ import annotations

# Other names of commands → the command.
ALIASES = {
    "?": "help",
    "list": "models",
    "ls": "models",
    "reset": "clear",
    "list-models": "models",
    "ablation": "ablate",
    "steering": "steer",
    "head-view": "attention",
    "mediation": "mediate",
    "logit-lens": "lens",
    "tuned-lens": "lens",
    "activation-patching": "patch",
    "path-patching": "path",
    "direct-logit-attribution": "dla",
    "integrated-gradients": "saliency",
    "perplexity": "loss",
    "surprisal": "loss",
}

# What is no command, in a magic or as interp.NAME → what gives it.
HINTS = {
    "tutorial": "begin with the notebook demo/quickstart.ipynb",
    "demo": "begin with the notebook demo/quickstart.ipynb",
    "examples": "%interp help COMMAND shows one; the notebooks in demo/ have more",
    "info": "%interp status says what is loaded",
    "version": "interp.__version__ says it",
    "logits": "%%interp predict shows the likeliest tokens; interp.model.run(prompt).logits holds all logits",
    "activations": 'interp.model.run(prompt).activations["pattern", 0] holds them',
    "cache": 'interp.model.run(prompt).activations["pattern", 0] is what a cache holds',
    "knockout": "%%interp ablate --knockout 1.0:5->2 cuts edges of attention",
    "embed": 'interp.model.run(prompt).activations["resid_pre", 0] is what the layers begin with',
    "chat": "type user: and what is asked below %%interp generate: the model's chat template writes it",
    "quit": "%interp unload frees a model",
    "exit": "%interp unload frees a model",
    "sae": "%interp features-load reads dictionaries of features",
    "transcoder": "%interp features-load reads dictionaries of features",
    "hooks": "interp.model.hook_names lists them, and interp.model.run(prompt).activations holds what is there",
    "run-with-cache": "interp.model.run(prompt) holds logits and activations; its bridge, interp.model.bridge, has it",
    "run_with_cache": "interp.model.run(prompt) holds logits and activations; its bridge, interp.model.bridge, has it",
    "from_pretrained": "interp.load(name) loads a model",
    "save": 'a result saves itself: add -o r to its cell, then r.save("r.html")',
    "plot": "a result shows itself; r.to_plotly() is a figure, r.png() a picture",
    "viz": "a result shows itself; r.to_plotly() is a figure, r.png() a picture",
    "show": "a result shows itself as a cell's last line; r.widget is its view, r.to_plotly() a figure",
    "HookedTransformer": "interp.load(name) loads a model, and interp.model.bridge is its TransformerBridge",
}

# What is looked for on a result → what gives it.
OF_RESULTS = {
    "plot": "to_plotly()",
    "fig": "to_plotly()",
    "figure": "to_plotly()",
    "show": "widget, or to_plotly()",
    "df": "to_frame()",
    "to_df": "to_frame()",
    "to_pandas": "to_frame()",
    "dataframe": "to_frame()",
    "to_html": "html()",
    "to_svg": "svg()",
    "to_png": "png()",
    "to_json": 'save("name.json")',
    "to_csv": 'to_frame().to_csv("name.csv")',
}
