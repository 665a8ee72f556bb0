// Gives every window the defaults in defaults.json from its first moment, users' own settings still winning.
// The workbench takes `configurationDefaults` from the page that loads it, but the server has no option to put them
// there; an extension's defaults come later and may not touch application-wide settings (telemetry, updates).
// Usage: node patch.mjs SERVER_MAIN_JS DEFAULTS_JSON. Stops the build when a new release no longer has the place.
import { readFileSync, writeFileSync } from "node:fs";

const [file, defaults] = process.argv.slice(2);
const anchor = 'enableWorkspaceTrust:!this._environmentService.args["disable-workspace-trust"],';
const source = readFileSync(file, "utf8");
const parts = source.split(anchor);
if (parts.length !== 2) {
  console.error(`patch: the place for the defaults was found ${parts.length - 1} times in ${file}, not once`);
  process.exit(1);
}
const values = JSON.stringify(JSON.parse(readFileSync(defaults, "utf8")));
writeFileSync(file, `${parts[0]}configurationDefaults:${values},${anchor}${parts[1]}`);
