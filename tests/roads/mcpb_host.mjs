// What a host makes of an unpacked bundle, by the official package's own code: the command that it
// runs, with the person's settings in it. Arguments: the package, the folder, the settings as JSON.
import { readFileSync } from "node:fs";
import { sep } from "node:path";
import { pathToFileURL } from "node:url";

const [library, folder, settings] = process.argv.slice(2);
const { getMcpConfigForManifest } = await import(pathToFileURL(library));
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));
const config = await getMcpConfigForManifest({
  manifest,
  extensionPath: folder,
  systemDirs: {},
  userConfig: JSON.parse(settings),
  pathSeparator: sep,
});
console.log(JSON.stringify(config));
