"""The Grafana dashboard as a program: `python -m deploy.grafana.dashboard > deploy/grafana/rag-serving.json`.

The layout follows from the order of the panels. Standard library only. tests/deploy holds the file to this program and
asks a real Prometheus for every expression.
"""

import json
import sys
from typing import Any

from deploy.grafana.panels import ROWS, Panel

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
NUM_COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 24, 8, 8


def panel_json(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A time series panel as Grafana reads it."""
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.question,
        "datasource": DATASOURCE,
        "gridPos": {"h": PANEL_HEIGHT, "w": PANEL_WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
            for i, query in enumerate(panel.queries)
        ],
    }


def panels_json() -> list[dict[str, Any]]:
    """Every row's header and panels, laid out left to right, top to bottom."""
    laid_out: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS:
        header = {"h": 1, "w": NUM_COLUMNS, "x": 0, "y": y}
        row = {"id": len(laid_out) + 1, "type": "row", "title": title, "collapsed": False, "panels": []}
        laid_out.append(row | {"gridPos": header})
        per_line = NUM_COLUMNS // PANEL_WIDTH
        for i, panel in enumerate(panels):
            x, below = i % per_line * PANEL_WIDTH, i // per_line * PANEL_HEIGHT
            laid_out.append(panel_json(panel, len(laid_out) + 1, x, y + 1 + below))
        y += 1 + -(-len(panels) // per_line) * PANEL_HEIGHT
    return laid_out


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "uid": "rag-serving",
        "title": "RAG serving",
        "description": "Written by deploy/grafana/dashboard.py, not by hand.",
        "tags": ["rag"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "panels": panels_json(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
